"""The reading *options*: equal to plain forward passes of prompt and option, stored, each prompt read once."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from probegrid.data.example import Question
from probegrid.errors import ConfigError
from probegrid.inference import engine
from probegrid.models.load import LoadedModel
from probegrid.progress import Progress
from probegrid.readings.options import OptionReading, continuations_of, read_options
from probegrid.readings.prompts import Prompt
from probegrid.readings.templates import ChatTemplate

DRAW = torch.Generator().manual_seed(1)


def tokens(count: int) -> tuple[int, ...]:
    return tuple(torch.randint(10, 500, (count,), generator=DRAW).tolist())


SHARED = tokens(20)
PROMPTS = [SHARED + tokens(3 + row) for row in range(6)]
OPTIONS = [tuple(tokens(1 + (row + place) % 4) for place in range(2 + row % 4)) for row in range(6)]


class Reader:
    def __init__(self, folder: Path, store: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.store, self.opened = store, 0

    def open_model(self) -> LoadedModel:
        self.opened += 1
        return LoadedModel(self.model, load_s=0.0)

    def read(self, count: int = len(PROMPTS), batch_size: str = "auto") -> OptionReading:
        with Progress(Console(file=io.StringIO())) as progress:
            return read_options(
                PROMPTS[:count],
                OPTIONS[:count],
                batch_size=batch_size,
                description={"model": "random"},
                store_dir=str(self.store),
                tokenizer=self.tokenizer,
                open_model=self.open_model,
                progress=progress,
            )

    def one_by_one(self) -> list[list[list[float]]]:
        found = []
        for prompt, options in zip(PROMPTS, OPTIONS, strict=True):
            rows = []
            for option in options:
                with torch.inference_mode():
                    logprobs = self.stock(torch.tensor([prompt + option])).logits[0].log_softmax(-1)
                places = range(len(prompt) - 1, len(prompt) + len(option) - 1)
                rows.append(
                    [logprobs[place, token].item() for place, token in zip(places, option, strict=True)]
                )
            found.append(rows)
        return found


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2", "mistral_sliding"])
@pytest.mark.parametrize("batch_size", ["auto", "2"])
def test_log_probabilities_are_those_of_plain_forward_passes(
    name: str, batch_size: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    reader = Reader(checkpoint(name), tmp_path)
    found, wanted = reader.read(batch_size=batch_size).logprobs, reader.one_by_one()
    for mine, theirs in zip(found, wanted, strict=True):
        for option, other in zip(mine, theirs, strict=True):
            assert option == pytest.approx(other, abs=2e-4, rel=1e-4)


def test_what_is_stored_is_not_read_again(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    reader = Reader(checkpoint("llama"), tmp_path)
    few = reader.read(3)
    assert reader.read(3) == few
    assert reader.opened == 1
    whole = reader.read()
    assert whole.logprobs[:3] == few.logprobs
    assert reader.opened == 2


def test_a_batch_that_does_not_fit_is_halved(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small(engine.SharedPrefixDecoder):
        def prefill(self, suffixes: object, *, room: int) -> torch.Tensor:
            if len(suffixes) > 1:  # type: ignore[arg-type]
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().prefill(suffixes, room=room)  # type: ignore[arg-type]

    reader = Reader(checkpoint("llama"), tmp_path)
    wanted = reader.one_by_one()
    monkeypatch.setattr(engine, "SharedPrefixDecoder", Small)
    assert reader.read().logprobs[0][0] == pytest.approx(wanted[0][0], abs=2e-4)


def test_an_option_that_the_tokenizer_joins_with_the_prompt_is_refused(
    checkpoint: Callable[[str], Path],
) -> None:
    template = ChatTemplate(AutoTokenizer.from_pretrained(checkpoint("llama")), None)
    (ids,) = template.tokenize(["Which?"])
    prompt = Prompt(Question("q", "Which?", ("A",), options=("x", "y")), "Which?", tuple(ids))
    (found,) = continuations_of([prompt], lambda _: ("x", "yes no"), template, begins_turn=False)
    assert [len(option) > 0 for option in found] == [True, True]
    other = Prompt(prompt.question, "Which?", (*ids[:-1], ids[-1] + 1))
    with pytest.raises(ConfigError, match=r"joins the option 'x' of question q .*prompt\.score_options=none"):
        continuations_of([other], lambda _: ("x", "y"), template, begins_turn=False)
