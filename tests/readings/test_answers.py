"""The reading *answers*: stored as they come, resumed in the same batches, halved when memory runs out."""

from __future__ import annotations

import functools
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from probegrid.data import facts
from probegrid.errors import RunError
from probegrid.inference import engine
from probegrid.inference.padded import PaddedDecoder
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.models.load import LoadedModel
from probegrid.planning.plan import Limits
from probegrid.progress import Progress
from probegrid.readings.answers import AnswerReading, Stops, read_answers
from probegrid.readings.prompts import Prompt, build_prompts, choose_shots
from probegrid.readings.store import Entry
from probegrid.readings.templates import ChatTemplate
from probegrid.schema import DecodingConfig, PromptConfig

N = 13
BATCHES_OF_5 = [5, 5, 3]


@functools.cache
def tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


@functools.cache
def prompts_of(folder: Path, count: int) -> tuple[Prompt, ...]:
    data, config = facts.load(facts.FactsConfig(num_samples=count)), PromptConfig(num_few_shot=2)
    template = ChatTemplate(tokenizer_of(folder), None)
    return build_prompts(data.questions, choose_shots(data, config), config, template)


class Reader:
    """Reads the same prompts with one model again and again; counts how often the model was asked for."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.checkpoint = folder
        self.tokenizer = tokenizer_of(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.store = store
        self.opened = 0
        self.said = ""
        self.asked = N
        self.limits: Limits | None = None

    @property
    def prompts(self) -> list[Prompt]:
        return list(prompts_of(self.checkpoint, self.asked))

    def open_model(self) -> LoadedModel:
        self.opened += 1
        return LoadedModel(self.model, load_s=0.0, limits=self.limits)

    def read(
        self,
        store: str = "store",
        batch_size: str = "5",
        since: float | None = None,
        **decoding: object,
    ) -> AnswerReading:
        heard = io.StringIO()
        with Progress(Console(file=heard, width=1000)) as progress:
            reading = read_answers(
                self.prompts,
                DecodingConfig(max_new_tokens=12, batch_size=batch_size, **decoding),
                Stops(tuple(PromptConfig().stop)),
                description={"model": "random"},
                store_dir=str(self.store / store),
                tokenizer=self.tokenizer,
                open_model=self.open_model,
                progress=progress,
                since=since,
            )
        self.said = heard.getvalue()
        return reading

    def folder(self, reading: AnswerReading, store: str = "store") -> Path:
        return self.store / store / "answers" / reading.key

    def parts(self, reading: AnswerReading, store: str = "store") -> list[Path]:
        return sorted(self.folder(reading, store).glob("*.parquet"))

    def batches(self, reading: AnswerReading, store: str = "store") -> list[list[str]]:
        (file,) = self.folder(reading, store).glob("batches-*.json")
        found: list[list[str]] = json.loads(file.read_text())
        return found

    def forget(self, reading: AnswerReading, digests: Sequence[str]) -> None:
        """Take some prompts' rows out of the store, as if their batches had never been read."""
        (part,) = self.parts(reading)
        table = pq.read_table(part)
        left = table.filter(pc.invert(pc.is_in(table["prompt"], pa.array(digests))))
        part.unlink()
        entry = Entry(
            self.store / "store", "answers", json.loads((part.parent / "description.json").read_text())
        )
        assert entry.folder == part.parent
        entry.write_part(left)


@pytest.fixture
def reader(checkpoint: Callable[[str], Path], tmp_path: Path) -> Reader:
    return Reader(checkpoint("llama"), tmp_path)


def tokens(reading: AnswerReading) -> list[list[tuple[int, ...]]]:
    return [[found.token_ids for found in generations] for generations in reading.generations]


def test_a_reading_is_made_once(reader: Reader) -> None:
    first = reader.read()
    again = reader.read()
    assert reader.opened == 1
    assert again == first
    assert [prompt.question for prompt in first.prompts] == [prompt.question for prompt in reader.prompts]
    assert first.generated_tokens == sum(found.steps for found in first.greedy) > N
    assert first.read_s > 0
    assert first.prefix_tokens > 20


def test_only_what_is_missing_is_made_again_and_it_is_the_same(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = reader.read(do_sample=True, num_generations=2)
    batches = reader.batches(first)
    assert list(map(len, batches)) == BATCHES_OF_5
    reader.forget(first, batches[1])
    asked: list[int] = []
    answer = engine.Engine.answer
    monkeypatch.setattr(
        engine.Engine, "answer", lambda self, *given: asked.append(len(given[0])) or answer(self, *given)
    )
    again = reader.read(do_sample=True, num_generations=2)
    assert asked == [5]
    assert again.generations == first.generations
    assert len(reader.parts(again)) == 1


def test_more_questions_ask_only_those_that_are_new(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reader.read("whole")
    asked: list[int] = []
    answer = engine.Engine.answer
    monkeypatch.setattr(
        engine.Engine, "answer", lambda self, *given: asked.append(len(given[0])) or answer(self, *given)
    )
    for reader.asked, new in ((4, [4]), (N, [5, 4]), (4, []), (7, [])):
        asked.clear()
        found = reader.read()
        assert asked == new
        assert tokens(found) == tokens(whole)[: reader.asked]
        assert found.key == whole.key
        assert found.generated_tokens == sum(generation.steps for generation in found.greedy)
    assert len(reader.parts(found)) == 1


def test_two_questions_with_one_prompt_are_asked_once(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = reader.prompts
    twice = [*prompts, replace(prompts[0], question=replace(prompts[0].question, id="another"))]
    monkeypatch.setattr(Reader, "prompts", twice)
    found = reader.read()
    assert found.generations[0] == found.generations[-1]
    assert len(found.generations) == N + 1
    assert found.generated_tokens == sum(generation.steps for generation in found.greedy[:-1])


def test_what_is_older_than_asked_for_is_read_again_once(reader: Reader) -> None:
    first = reader.read()
    now = time.time()
    again = reader.read(since=now)
    assert reader.opened == 2
    assert tokens(again) == tokens(first)
    assert again.read_s != first.read_s
    assert reader.read(since=now) == reader.read() == again
    assert reader.opened == 2


def test_batches_keep_to_the_plan_and_answer_alike(reader: Reader) -> None:
    unplanned = reader.read("unplanned", batch_size="auto")
    by_limits = {
        Limits(rows=4, pass_tokens=16, cache_tokens=None): [4, 4, 4, 1],
        Limits(rows=100, pass_tokens=4096, cache_tokens=None): [N],
    }
    for number, (reader.limits, sizes) in enumerate(by_limits.items()):
        planned = reader.read(str(number), batch_size="auto")
        assert list(map(len, reader.batches(planned, str(number)))) == sizes
        assert tokens(planned) == tokens(unplanned)
    longest = max(len(prompt.token_ids) for prompt in reader.prompts) - unplanned.prefix_tokens + 12
    reader.limits = Limits(rows=100, pass_tokens=4096, cache_tokens=3 * longest)
    planned = reader.read("few tokens", batch_size="auto")
    assert len(reader.batches(planned, "few tokens")[0]) == 3
    assert tokens(planned) == tokens(unplanned)


def test_batches_are_laid_out_once_longest_first_and_kept(reader: Reader) -> None:
    first = reader.read()
    batches = reader.batches(first)
    lengths = {prompt.digest: len(prompt.token_ids) for prompt in reader.prompts}
    assert list(map(len, batches)) == BATCHES_OF_5
    assert sorted(chain(*batches)) == sorted(lengths)
    sizes = [lengths[digest] for digest in chain(*batches)]
    assert sizes == sorted(sizes, reverse=True)
    for part in reader.parts(first):
        part.unlink()
    again = reader.read(batch_size="2")
    assert reader.batches(again) == batches
    assert again.generations == first.generations


def test_the_batch_size_changes_neither_entry_nor_answers(reader: Reader) -> None:
    sizes = {"1": N, "4": 4, "auto": 1}
    readings = [reader.read(store=f"store {size}", batch_size=size) for size in sizes]
    assert len({reading.key for reading in readings}) == 1
    for reading, (size, count) in zip(readings, sizes.items(), strict=True):
        assert len(reader.batches(reading, f"store {size}")) == count
        assert len(reader.parts(reading, f"store {size}")) == 1
        assert tokens(reading) == tokens(readings[0])


@pytest.mark.parametrize("damage", [0, 100, -100])
def test_a_damaged_part_is_set_aside_and_made_again(reader: Reader, damage: int) -> None:
    first = reader.read()
    (part,) = reader.parts(first)
    content = bytearray(part.read_bytes())
    content[damage] ^= 1
    part.write_bytes(content)
    assert reader.read().generations == first.generations
    assert f"{part} is damaged (its checksum differs)" in reader.said
    assert part.with_name(f"{part.name}.damaged").exists()
    assert reader.read().generations == first.generations
    assert reader.opened == 2


CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU = RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.")


def out_of_memory_above(rows: int, base: type, error: Exception) -> type:
    """A decoder that has memory for so many rows, prompts and samples together."""

    class Small(base):
        def prefill(self, suffixes: Sequence[Sequence[int]], *, room: int) -> torch.Tensor:
            if len(suffixes) > rows:
                raise error
            return super().prefill(suffixes, room=room)

        def keep(self, chosen: Sequence[int]) -> None:
            if len(chosen) > rows:
                raise error
            super().keep(chosen)

    return Small


@pytest.mark.parametrize("error", [CUDA, CPU], ids=["cuda", "cpu"])
@pytest.mark.parametrize(
    "decoding", [{}, {"do_sample": True, "num_generations": 2}], ids=["greedy", "sample"]
)
def test_a_batch_that_does_not_fit_is_halved(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, error: Exception, decoding: dict[str, object]
) -> None:
    wanted = reader.read("roomy", **decoding)
    monkeypatch.setattr(engine, "SharedPrefixDecoder", out_of_memory_above(3, SharedPrefixDecoder, error))
    found = reader.read("tight", **decoding)
    assert tokens(found) == tokens(wanted)
    assert reader.read("tight", **decoding) == found


def test_a_padded_batch_that_does_not_fit_is_halved_too(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(checkpoint("gemma2"), tmp_path)
    monkeypatch.setattr(engine, "obstacle", lambda model: "it is padded here")
    wanted = reader.read("roomy")
    assert wanted.way["used"] == "padded batches"
    monkeypatch.setattr(engine, "PaddedDecoder", out_of_memory_above(2, PaddedDecoder, CUDA))
    found = reader.read("tight")
    assert tokens(found) == tokens(wanted)


def test_a_question_that_does_not_fit_alone_is_named(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SharedPrefixDecoder", out_of_memory_above(0, SharedPrefixDecoder, CUDA))
    with pytest.raises(RunError, match=r"question fact-\d+ alone does not fit in memory"):
        reader.read()


def test_what_cannot_read_a_model_makes_way_for_what_can_and_says_so(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = reader.read("as ever")
    broken = out_of_memory_above(0, SharedPrefixDecoder, RuntimeError("expected scalar type Float"))
    monkeypatch.setattr(engine, "SharedPrefixDecoder", broken)
    monkeypatch.setattr(engine.Trial, "known", lambda *_: None)  # it was found right before it was broken
    found = reader.read("otherwise")
    assert tokens(found) == tokens(wanted)
    assert (wanted.way["used"], found.way["used"]) == ("shared prefix", "padded batches")
    assert "scalar type" in found.way["passed_over"]["shared prefix"]
