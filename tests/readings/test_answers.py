"""The reading *answers*: stored as they come, resumed in the same batches, halved when memory runs out."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from probegrid.data import facts
from probegrid.errors import RunError, StoreError
from probegrid.inference import engine
from probegrid.inference.padded import PaddedDecoder
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.models.load import LoadedModel
from probegrid.planning.plan import Limits
from probegrid.progress import Progress
from probegrid.readings.answers import AnswerReading, read_answers
from probegrid.readings.prompts import Prompt, build_prompts
from probegrid.schema import DecodingConfig, PromptConfig

N = 13
BATCHES_OF_5 = [5, 5, 3]


class Reader:
    """Reads the same prompts with one model again and again; counts how often the model was asked for."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.store = store
        self.opened = 0
        self.limits: Limits | None = None

    @property
    def prompts(self) -> list[Prompt]:
        data = facts.load(facts.FactsConfig(num_samples=N))
        return build_prompts(data, PromptConfig(num_few_shot=2), self.tokenizer, None)

    def open_model(self) -> LoadedModel:
        self.opened += 1
        return LoadedModel(self.model, load_s=0.0, limits=self.limits)

    def read(self, store: str = "store", batch_size: str = "5", **decoding: object) -> AnswerReading:
        with Progress(Console(file=io.StringIO())) as progress:
            return read_answers(
                self.prompts,
                DecodingConfig(max_new_tokens=12, batch_size=batch_size, **decoding),
                PromptConfig().stop,
                description={"model": "random", **decoding},
                store_dir=str(self.store / store),
                tokenizer=self.tokenizer,
                open_model=self.open_model,
                progress=progress,
            )

    def folder(self, reading: AnswerReading, store: str = "store") -> Path:
        return self.store / store / "answers" / reading.key

    def parts(self, reading: AnswerReading, store: str = "store") -> list[Path]:
        return sorted(self.folder(reading, store).glob("*.parquet"))


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


def test_only_what_is_missing_is_made_again_and_it_is_the_same(reader: Reader) -> None:
    first = reader.read(do_sample=True, num_generations=2)
    parts = reader.parts(first)
    assert len(parts) == len(BATCHES_OF_5)
    untouched = [(part, part.stat().st_mtime_ns) for part in parts[1:]]
    parts[0].unlink()
    again = reader.read(do_sample=True, num_generations=2)
    assert again.generations == first.generations
    assert [(part, part.stat().st_mtime_ns) for part in parts[1:]] == untouched


def test_batches_keep_to_the_plan_and_answer_alike(reader: Reader) -> None:
    unplanned = reader.read("unplanned", batch_size="auto")
    by_limits = {
        Limits(rows=4, pass_tokens=16, cache_tokens=None): [4, 4, 4, 1],
        Limits(rows=100, pass_tokens=4096, cache_tokens=None): [N],
    }
    for number, (reader.limits, sizes) in enumerate(by_limits.items()):
        planned = reader.read(str(number), batch_size="auto")
        batches = json.loads((reader.folder(planned, str(number)) / "batches.json").read_text())
        assert list(map(len, batches)) == sizes
        assert tokens(planned) == tokens(unplanned)
    longest = max(len(prompt.token_ids) for prompt in reader.prompts) - unplanned.prefix_tokens + 12
    reader.limits = Limits(rows=100, pass_tokens=4096, cache_tokens=3 * longest)
    planned = reader.read("few tokens", batch_size="auto")
    batches = json.loads((reader.folder(planned, "few tokens") / "batches.json").read_text())
    assert len(batches[0]) == 3
    assert tokens(planned) == tokens(unplanned)


def test_batches_are_laid_out_once_longest_first_and_kept(reader: Reader) -> None:
    first = reader.read()
    file = reader.folder(first) / "batches.json"
    batches = json.loads(file.read_text())
    assert list(map(len, batches)) == BATCHES_OF_5
    assert sorted(chain(*batches)) == list(range(N))
    sizes = [len(reader.prompts[index].token_ids) for index in chain(*batches)]
    assert sizes == sorted(sizes, reverse=True)
    for part in reader.parts(first):
        part.unlink()
    again = reader.read(batch_size="2")
    assert json.loads(file.read_text()) == batches
    assert again.generations == first.generations


def test_the_batch_size_changes_neither_entry_nor_answers(reader: Reader) -> None:
    readings = [reader.read(store=f"store {size}", batch_size=size) for size in ("1", "4", "auto")]
    assert len({reading.key for reading in readings}) == 1
    assert [len(reader.parts(readings[0], f"store {size}")) for size in ("1", "4", "auto")] == [N, 4, 1]
    for reading in readings[1:]:
        assert tokens(reading) == tokens(readings[0])


def test_a_damaged_part_is_named_and_once_it_is_gone_made_again(reader: Reader) -> None:
    first = reader.read()
    part = reader.parts(first)[1]
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(StoreError, match=part.name):
        reader.read()
    part.unlink()
    assert reader.read().generations == first.generations


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
    assert len(reader.parts(found, "tight")) > len(BATCHES_OF_5)
    assert reader.read("tight", **decoding) == found


def test_a_padded_batch_that_does_not_fit_is_halved_too(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(checkpoint("gemma2"), tmp_path)
    wanted = reader.read("roomy")
    monkeypatch.setattr(engine, "PaddedDecoder", out_of_memory_above(2, PaddedDecoder, CUDA))
    found = reader.read("tight")
    assert tokens(found) == tokens(wanted)
    assert len(reader.parts(found, "tight")) > len(BATCHES_OF_5)


def test_a_question_that_does_not_fit_alone_is_named(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SharedPrefixDecoder", out_of_memory_above(0, SharedPrefixDecoder, CUDA))
    with pytest.raises(RunError, match=r"question fact-\d+ alone does not fit in memory"):
        reader.read()


def test_another_error_is_not_taken_for_full_memory(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = out_of_memory_above(0, SharedPrefixDecoder, RuntimeError("expected scalar type Float"))
    monkeypatch.setattr(engine, "SharedPrefixDecoder", broken)
    with pytest.raises(RuntimeError, match="scalar type"):
        reader.read()
