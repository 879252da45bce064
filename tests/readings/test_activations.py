"""The reading activations: right whatever the batches, stored layer by layer, resumed where it was killed."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from probegrid.data.example import Conversation, Message, Statement, StatementSet
from probegrid.errors import ConfigError, RunError
from probegrid.inference.residual import ResidualReader
from probegrid.models.checkpoint import find_checkpoint
from probegrid.models.load import LoadedModel, load_tokenizer
from probegrid.models.load_truncated import load_truncated
from probegrid.models.request import ModelRequest
from probegrid.planning.plan import Limits
from probegrid.progress import Progress
from probegrid.readings import activations
from probegrid.readings.activations import ActivationReading, read_activations
from probegrid.readings.batches import lay_out
from probegrid.readings.spans import Example, Passage, Position, statement_passages
from probegrid.readings.templates import ChatTemplate
from probegrid.schema import Dtype, ModelConfig, QuantizationMethod

torch.set_num_threads(1)

WIDTH, BLOCKS = 32, 4
LENGTHS = [5, 12, 3, 9, 9, 30, 4, 7]


def build(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return transformers.LlamaModel(config).to(dtype).eval()


def make_passages() -> tuple[Passage, ...]:
    """Two examples each: the mean over everything and the last token."""
    generator = torch.Generator().manual_seed(1)
    return tuple(
        Passage(
            f"c{index}",
            tuple(torch.randint(3, 90, (length,), generator=generator).tolist()),
            tuple(
                Example(f"c{index}/{part}", f"c{index}", f"text {part}", part == 0, "s") for part in (0, 1)
            ),
            ((0, length), (length - 1, length)),
        )
        for index, length in enumerate(LENGTHS)
    )


PASSAGES = make_passages()


class Opener:
    """Opens a model and remembers how deep it was asked for."""

    def __init__(self, model: Any = None) -> None:
        self.model = model or build()
        self.asked: list[int] = []

    def __call__(self, deepest: int) -> LoadedModel:
        self.asked.append(deepest)
        return LoadedModel(self.model, 0.0)


class Counting(Progress):
    """Counts instead of showing, and may stop a run as Ctrl-C does."""

    def __init__(self, stop_after: int | None = None) -> None:
        self._heard = io.StringIO()
        super().__init__(Console(file=self._heard, width=1000))
        self.started: list[tuple[int, int]] = []
        self.steps: list[tuple[int, int]] = []
        self.stop_after = stop_after

    @property
    def heard(self) -> str:
        return self._heard.getvalue()

    def start(self, name: str, *, total: int, done: int = 0) -> None:
        assert name == "activations"
        self.started.append((total, done))

    def advance(self, examples: int, *, tokens: int = 0) -> None:
        self.steps.append((examples, tokens))
        if len(self.steps) == self.stop_after:
            raise KeyboardInterrupt


def read(
    folder: Path,
    layers: Sequence[int] = (1, 3),
    *,
    open_model: Callable[[int], LoadedModel] | None = None,
    passages: Sequence[Passage] = PASSAGES,
    progress: Progress | None = None,
    batch_tokens: int | None = 24,
    since: float | None = None,
) -> ActivationReading:
    return read_activations(
        passages,
        layers,
        description={"checkpoint": "tiny"},
        store_dir=str(folder),
        open_model=open_model or Opener(),
        progress=progress or Counting(),
        batch_tokens=batch_tokens,
        since=since,
    )


def values(reading: ActivationReading) -> dict[int, Tensor]:
    return {layer: reading.values(layer) for layer in reading.layers}


def same(one: ActivationReading, other: ActivationReading) -> bool:
    return one.layers == other.layers and all(
        torch.equal(one.values(layer), other.values(layer)) for layer in one.layers
    )


def alone(layers: Sequence[int]) -> dict[int, Tensor]:
    """Each passage read by itself."""
    reader = ResidualReader(build(), layers)
    found = [reader.read([passage.token_ids], [passage.spans], torch.float32) for passage in PASSAGES]
    return {layer: torch.cat([one[layer] for one in found]) for layer in layers}


def test_every_example_in_order_whatever_the_batches(tmp_path: Path) -> None:
    expected = alone([0, 1, BLOCKS])
    for batch_tokens in (1, 24, 40, None):
        progress = Counting()
        reading = read(
            tmp_path / str(batch_tokens), [BLOCKS, 0, 1], batch_tokens=batch_tokens, progress=progress
        )
        assert reading.layers == (0, 1, BLOCKS)
        assert progress.started == [(len(PASSAGES), 0)]
        assert [sum(column) for column in zip(*progress.steps, strict=True)] == [len(PASSAGES), sum(LENGTHS)]
        for layer, found in values(reading).items():
            assert (found.dtype, found.shape) == (torch.bfloat16, (2 * len(PASSAGES), WIDTH))
            torch.testing.assert_close(found.float(), expected[layer], rtol=2**-8, atol=1e-5)


def test_what_is_known_of_the_examples(tmp_path: Path) -> None:
    reading = read(tmp_path)
    assert reading.ids[:3] == ("c0/0", "c0/1", "c1/0")
    assert reading.conversations[:3] == ("c0", "c0", "c1")
    assert reading.texts[:2] == ("text 0", "text 1")
    assert reading.labels[:3] == (True, False, True)
    assert set(reading.sources) == {"s"}
    assert reading.read_tokens == sum(LENGTHS)
    assert reading.read_s > 0


def test_only_the_layers_and_tokens_that_are_asked_for_are_stored(tmp_path: Path) -> None:
    reading = read(tmp_path)
    entry = tmp_path / "activations" / reading.key
    assert sorted(path.name.partition("-")[0] for path in entry.iterdir()) == [
        "batches",
        "description.json",
        "layer",
        "layer",
        "way.json",
    ]
    for folder in entry.glob("layer-*"):
        parts = [load_file(file) for file in folder.iterdir()]
        assert sum(part["values"].nbytes for part in parts) == 2 * len(PASSAGES) * WIDTH * 2


def test_a_second_reading_needs_no_model_and_labels_change_nothing(tmp_path: Path) -> None:
    first = read(tmp_path)
    relabelled = [
        replace(
            passage, examples=tuple(replace(example, label=not example.label) for example in passage.examples)
        )
        for passage in PASSAGES
    ]
    opener = Opener()
    second = read(tmp_path, passages=relabelled, open_model=opener, batch_tokens=999)
    assert opener.asked == []
    assert second.key == first.key
    assert same(first, second)
    assert second.labels == tuple(not label for label in first.labels)


@pytest.mark.parametrize("change", [{"spans": ((0, 4), (4, 5))}, {"token_ids": (1, 2, 3, 4, 5)}])
def test_other_tokens_are_read_and_the_rest_is_not_read_again(tmp_path: Path, change: dict[str, Any]) -> None:
    first, progress = read(tmp_path), Counting()
    other = (replace(PASSAGES[0], **change), *PASSAGES[1:])
    changed = read(tmp_path, passages=other, progress=progress)
    assert [examples for examples, _ in progress.steps] == [1]
    assert changed.key == first.key
    assert not torch.equal(changed.values(1)[:2], first.values(1)[:2])
    assert torch.equal(changed.values(1)[2:], first.values(1)[2:])
    assert same(changed, read(tmp_path / "apart", passages=other))


def test_more_passages_read_only_those_that_are_new(tmp_path: Path) -> None:
    opener, progress = Opener(), Counting()
    few = read(tmp_path, passages=PASSAGES[:3], open_model=opener)
    more = read(tmp_path, open_model=opener, progress=progress)
    assert sum(examples for examples, _ in progress.steps) == len(PASSAGES) - 3
    assert torch.equal(more.values(3)[:6], few.values(3))
    again = read(tmp_path, passages=tuple(reversed(PASSAGES)), open_model=opener)
    assert opener.asked == [3, 3]
    assert torch.equal(again.values(3).flip(0)[::2], more.values(3)[1::2])
    assert len(list(tmp_path.rglob("part-*.safetensors"))) == 2  # one a layer, once all is there


def test_what_is_older_than_asked_for_is_read_again_once(tmp_path: Path) -> None:
    opener, now = Opener(), time.time()
    first = read(tmp_path, open_model=opener)
    assert same(read(tmp_path, open_model=opener, since=now), first)
    assert opener.asked == [3]
    later = time.time()
    for _ in range(2):
        assert same(read(tmp_path, open_model=opener, since=later), first)
    assert opener.asked == [3, 3]


def test_a_layer_added_later_reads_only_what_is_missing(tmp_path: Path) -> None:
    opener = Opener()
    read(tmp_path / "steps", [3], open_model=opener)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "steps").rglob("layer-003/*")}
    added = read(tmp_path / "steps", [0, 1, 3], open_model=opener, batch_tokens=7)
    assert opener.asked == [3, 1]
    assert {file: file.stat().st_mtime_ns for file in files} == files
    assert same(added, read(tmp_path / "at once", [0, 1, 3]))


def test_an_interrupted_reading_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path / "stopped", progress=Counting(stop_after=2))
    progress = Counting()
    resumed = read(tmp_path / "stopped", progress=progress, batch_tokens=5)
    whole = Counting()
    assert same(resumed, read(tmp_path / "whole", progress=whole))
    assert progress.steps == whole.steps[2:]
    assert progress.started == [(len(PASSAGES), sum(count for count, _ in whole.steps[:2]))]


def sampled() -> tuple[Passage, ...]:
    """Four samples to each of three questions behind one prefix, read at their last tokens."""
    generator = torch.Generator().manual_seed(2)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 90, (count,), generator=generator).tolist())

    prefix, found = tokens(40), list[Passage]()
    for question in range(3):
        asked = (*prefix, *tokens(9 + question))
        for sample in range(4):
            ids, name = (*asked, *tokens(1 + sample)), f"q{question}/{sample}"
            found.append(
                Passage(name, ids, (Example(name, "q", "text", False),), ((len(ids) - 1, len(ids)),))
            )
    return tuple(found)


def test_samples_are_read_with_what_they_share_once(tmp_path: Path) -> None:
    passages, model = sampled(), build()
    expected = torch.cat(
        [
            ResidualReader(build(), [3]).read([one.token_ids], [one.spans], torch.float32)[3]
            for one in passages
        ]
    )
    spent: list[int] = []
    model.layers[0].mlp.register_forward_pre_hook(lambda _, args: spent.append(args[0].shape[:2].numel()))
    progress = Counting()
    reading = read(tmp_path / "whole", [3], passages=passages, open_model=Opener(model), progress=progress)
    torch.testing.assert_close(reading.values(3).float(), expected, rtol=2**-8, atol=1e-5)
    assert reading.way["used"] == "shared prefix"
    # behind the trial: the prefix in passes of 24 tokens, and each question with its samples
    assert spent[-5:] == [24, 16, 9 + 10, 10 + 10, 11 + 10]
    assert sum(tokens for _, tokens in progress.steps) == sum(len(one.token_ids) for one in passages)
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path / "stopped", [3], passages=passages, progress=Counting(stop_after=1))
    resumed = read(tmp_path / "stopped", [3], passages=passages, batch_tokens=999)
    assert same(resumed, reading)


def test_samples_that_memory_cannot_hold_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passages = sampled()
    expected = read(tmp_path / "whole", [3], passages=passages)
    limit_memory(monkeypatch, 6 * max(len(one.token_ids) for one in passages), torch.OutOfMemoryError("full"))
    found = read(tmp_path / "parts", [3], passages=passages, batch_tokens=10_000)
    torch.testing.assert_close(found.values(3), expected.values(3), rtol=2**-7, atol=1e-5)
    assert found.way["used"] == "shared prefix"


def test_killed_between_two_layers_of_a_batch(tmp_path: Path) -> None:
    """A real SIGKILL, after the first layer of the second batch was written and in the middle of the next file."""
    child = os.fork()
    if child == 0:
        try:
            read_until_killed(tmp_path / "killed")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(list((tmp_path / "killed").rglob("part-*.safetensors"))) == 3
    assert same(read(tmp_path / "killed"), read(tmp_path / "whole"))


def read_until_killed(store: Path) -> None:
    write, calls = Path.write_bytes, []

    def write_bytes(path: Path, content: bytes) -> int:
        if "layer-" in str(path):
            calls.append(path)
        if len(calls) == 4:
            write(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, content)

    Path.write_bytes = write_bytes  # type: ignore[method-assign]
    read(store)


def limit_memory(monkeypatch: pytest.MonkeyPatch, tokens: int, error: Exception) -> list[int]:
    """Let no batch of more tokens through, padding included; the tokens of every attempt."""
    attempts: list[int] = []
    original = ResidualReader.read

    def read_or_fail(
        self: ResidualReader, token_ids: Sequence[Sequence[int]], spans: Any, *dtype: Any, **prompts: Any
    ) -> Any:
        attempts.append(len(token_ids) * max(map(len, token_ids)))
        if attempts[-1] > tokens:
            raise error
        return original(self, token_ids, spans, *dtype, **prompts)

    monkeypatch.setattr(ResidualReader, "read", read_or_fail)
    return attempts


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: not enough memory")],
)
def test_a_batch_that_memory_cannot_hold_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    expected = alone([1, 3])
    attempts = limit_memory(monkeypatch, 31, error)
    reading = read(tmp_path, batch_tokens=10_000)
    for layer, found in values(reading).items():
        torch.testing.assert_close(found.float(), expected[layer], rtol=2**-8, atol=1e-5)
    trial, *reading_ = [tokens for tokens in attempts if tokens > 31]
    assert trial == 60
    assert reading_ == [240, 120, 60]  # what failed once is not tried again


def test_a_passage_that_memory_cannot_hold_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 29, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RunError, match=r"conversation c5 alone \(30 tokens\) does not fit"):
        read(tmp_path)


def test_other_errors_of_the_runtime_are_not_taken_for_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_memory(monkeypatch, 0, RuntimeError("a kernel failed"))
    with pytest.raises(RuntimeError, match="a kernel failed"):
        read(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(tmp_path: Path, value: float) -> None:
    """Only the second block meets them, and only in one conversation."""
    model = build()
    row = next(row for row, index in enumerate(lay_out(LENGTHS, 24)[2]) if index == 4)

    def poison(_module: Any, _args: Any, output: Tensor) -> Tensor:
        return output.index_fill(0, torch.tensor([row]), value) if output.shape[1] == LENGTHS[4] else output

    model.layers[1].register_forward_hook(poison)
    with pytest.raises(RunError, match="conversation c4 at layer 2 are not finite"):
        read(tmp_path, [1, 2], open_model=Opener(model))
    assert read(tmp_path, [1]).layers == (1,)


def damage(file: Path, how: str) -> None:
    content = file.read_bytes()
    if how == "cut short":
        file.write_bytes(content[:-7])
    elif how == "a bit flipped":
        file.write_bytes(content[:-7] + bytes([content[-7] ^ 4]) + content[-6:])
    elif how == "a bit of the index flipped":
        place = content.index(b"digests") + 20
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    else:
        file.write_bytes(b"")


@pytest.mark.parametrize("how", ["cut short", "a bit flipped", "a bit of the index flipped", "empty"])
def test_a_damaged_part_is_set_aside_and_made_again(tmp_path: Path, how: str) -> None:
    expected = values(read(tmp_path, [1]))[1]
    (file,) = tmp_path.rglob("part-*.safetensors")
    damage(file, how)
    progress = Counting()
    assert torch.equal(values(read(tmp_path, [1], progress=progress))[1], expected)
    assert sum(examples for examples, _ in progress.steps) == len(PASSAGES)
    assert f"{file} is damaged" in progress.heard
    assert file.with_name(f"{file.name}.damaged").exists()


def test_a_layer_that_the_model_does_not_have_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"to {BLOCKS}"):
        read(tmp_path, [BLOCKS + 1])
    assert not list(tmp_path.rglob("layer-*"))


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60), most=st.integers(1, 200))
def test_batches_hold_every_passage_once_within_the_budget(lengths: list[int], most: int) -> None:
    batches = lay_out(lengths, most)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= most
    flat = [lengths[index] for batch in batches for index in batch]
    assert flat == sorted(flat, reverse=True)


def test_from_a_checkpoint_and_conversations_to_activations(
    tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    """The whole way, its blocks cut off, against the whole model asked statement by statement."""
    config = ModelConfig(path=str(checkpoint("llama")), dtype=Dtype.float32)
    found = find_checkpoint(config)
    tokenizer = load_tokenizer(found, config)
    content = "1. Rome is in Italy.\n2. Oslo is in Peru."
    said = Conversation(
        "c",
        (Message("user", "Say two things."), Message("assistant", content)),
        (
            Statement("c/1", "Rome is in Italy.", True, 3, 20),
            Statement("c/2", "Oslo is in Peru.", False, 24, len(content)),
        ),
    )
    template = ChatTemplate(tokenizer, "default")
    whole = transformers.AutoModelForCausalLM.from_pretrained(config.path, dtype=torch.float32).eval()
    for position in (Position.statement_end, Position.next_token):
        passages = statement_passages(
            StatementSet((said,)), position, tokenizer, template, context=found.context
        )
        request = ModelRequest(found, config, QuantizationMethod.none)
        reading = read(
            tmp_path, [1], passages=passages, open_model=lambda deepest, r=request: load_truncated(r, deepest)
        )
        for row, (statement, after) in enumerate(zip(said.statements, ("\n", "</s>"), strict=True)):
            text = "<s><|user|>Say two things.</s><|assistant|>" + content[: statement.char_end]
            text += after if position is Position.next_token else ""
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
            with torch.inference_mode():
                expected = whole(ids, output_hidden_states=True).hidden_states[1][0, -1]
            torch.testing.assert_close(reading.values(1)[row].float(), expected, rtol=2**-8, atol=1e-5)
        assert reading.labels == (True, False)


def test_batches_are_written_down_by_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(activations.PASS_TOKENS, "cpu", 12)
    reading = read(tmp_path, batch_tokens=None)
    assert written_batches(tmp_path, reading) == lay_out(LENGTHS, 12)


def test_the_plan_bounds_a_batch(tmp_path: Path) -> None:
    planned = LoadedModel(build(), 0.0, limits=Limits(rows=1, pass_tokens=16, cache_tokens=None))
    reading = read(tmp_path, batch_tokens=None, open_model=lambda _: planned)
    assert written_batches(tmp_path, reading) == lay_out(LENGTHS, 16)


def written_batches(store: Path, reading: ActivationReading) -> list[list[int]]:
    (file,) = (store / "activations" / reading.key).glob("batches-*.json")
    places = {passage.digest: index for index, passage in enumerate(PASSAGES)}
    return [[places[digest] for digest in batch] for batch in json.loads(file.read_text())]
