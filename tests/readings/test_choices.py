"""The reading *choices*: equal to a plain forward pass, resumed where it stopped, halved when memory runs out."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from probegrid.errors import RunError
from probegrid.inference import engine
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.models.load import LoadedModel
from probegrid.progress import Progress
from probegrid.readings.choices import ChoiceReading, read_choices

N = 9
CHOICES = (5, 60, 400)


class Reader:
    """Reads the same prompts with one model again and again; counts how often the model was asked for."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.store = store
        self.opened = 0
        self.choices = CHOICES
        draw = torch.Generator().manual_seed(0)
        shared = torch.randint(10, 500, (30,), generator=draw).tolist()
        self.prompts = [
            (*shared, *torch.randint(10, 500, (3 + 2 * row,), generator=draw).tolist()) for row in range(N)
        ]

    def open_model(self) -> LoadedModel:
        self.opened += 1
        return LoadedModel(self.model, load_s=0.0)

    def read(self, store: str = "store", batch_size: str = "4") -> ChoiceReading:
        with Progress(Console(file=io.StringIO())) as progress:
            return read_choices(
                self.prompts,
                self.choices,
                batch_size=batch_size,
                description={"model": "random"},
                store_dir=str(self.store / store),
                tokenizer=self.tokenizer,
                open_model=self.open_model,
                progress=progress,
            )

    def folder(self, reading: ChoiceReading, store: str = "store") -> Path:
        return self.store / store / "choices" / reading.key

    def one_by_one(self) -> list[list[float]]:
        """A plain forward pass of the whole prompt, prompt by prompt."""
        rows = []
        for prompt in self.prompts:
            with torch.inference_mode():
                logits = self.stock(torch.tensor([prompt])).logits[0, -1]
            rows.append(logits.log_softmax(-1)[list(CHOICES)].tolist())
        return rows


@pytest.fixture
def reader(checkpoint: Callable[[str], Path], tmp_path: Path) -> Reader:
    return Reader(checkpoint("llama"), tmp_path)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2", "mistral_sliding"])
def test_log_probabilities_are_those_of_a_plain_forward_pass(
    name: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    reader = Reader(checkpoint(name), tmp_path)
    torch.testing.assert_close(
        torch.tensor(reader.read().logprobs), torch.tensor(reader.one_by_one()), atol=1e-4, rtol=1e-4
    )


def test_a_reading_is_made_once_and_what_is_new_alone(reader: Reader) -> None:
    prompts = reader.prompts
    reader.prompts = prompts[:4]
    few = reader.read()
    assert reader.read() == few
    assert reader.opened == 1
    reader.prompts = prompts
    whole = reader.read()
    assert whole.key == few.key
    assert whole.logprobs[:4] == few.logprobs
    folder = reader.folder(whole)
    batches = [json.loads(file.read_text()) for file in folder.glob("batches-*.json")]
    assert sorted(sum(map(len, each)) for each in batches) == [4, N - 4]
    assert len(list(folder.glob("part-*.parquet"))) == 1
    assert reader.read().logprobs == whole.logprobs
    assert reader.opened == 2


def test_a_lost_part_is_made_again_in_the_same_batches(reader: Reader) -> None:
    first = reader.read()
    (part,) = reader.folder(first).glob("part-*.parquet")
    (file,) = reader.folder(first).glob("batches-*.json")
    batches = file.read_text()
    part.unlink()
    again = reader.read(batch_size="1")
    assert again.logprobs == first.logprobs
    assert file.read_text() == batches


def test_other_choices_are_another_entry(reader: Reader) -> None:
    first = reader.read()
    reader.choices = CHOICES[::-1]
    assert reader.read().key != first.key


def out_of_memory_above(rows: int) -> type:
    class Small(SharedPrefixDecoder):
        def prefill(self, suffixes: Sequence[Sequence[int]], *, room: int) -> torch.Tensor:
            if len(suffixes) > rows:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().prefill(suffixes, room=room)

    return Small


def test_a_batch_that_does_not_fit_is_halved(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = reader.read("roomy")
    monkeypatch.setattr(engine, "SharedPrefixDecoder", out_of_memory_above(1))
    found = reader.read("tight")
    torch.testing.assert_close(
        torch.tensor(found.logprobs), torch.tensor(wanted.logprobs), atol=1e-5, rtol=1e-5
    )


def test_a_prompt_that_does_not_fit_alone_is_said(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SharedPrefixDecoder", out_of_memory_above(0))
    with pytest.raises(RunError, match=r"a prompt of \d+ tokens alone does not fit in memory"):
        reader.read()
