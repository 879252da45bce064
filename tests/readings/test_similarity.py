"""The reading *similarities*, and entailments by the language model itself: equal to stock code, pair by pair."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from classifiers import save_classifier
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from probegrid.errors import CheckpointError
from probegrid.models.classifier import Classifier, find_cross_encoder
from probegrid.models.load import LoadedModel
from probegrid.progress import Progress
from probegrid.readings.entailment import WORDS, OwnEntailments, entails
from probegrid.readings.options import Continuations, OptionReading, read_options
from probegrid.readings.similarity import Similarities
from probegrid.readings.templates import ChatTemplate

PAIRS = [("Who plays? oboe", "Who plays? tuba"), ("tuba", "oboe"), ("oboe", "tuba"), ("", "x")]


def test_similarities_are_those_of_stock_code(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "cross", "roberta", labels={0: "LABEL_0"})
    checkpoint = find_cross_encoder(str(folder))
    loaded = []

    def load() -> Classifier:
        loaded.append(1)
        return Classifier.load(checkpoint, lambda device, needed: None)

    def ask() -> list[float]:
        progress = Progress(Console(file=io.StringIO()))
        with Similarities(
            checkpoint, load, asked_for="answers", store_dir=str(tmp_path / "store"), progress=progress
        ) as similarities:
            return similarities([*PAIRS, PAIRS[0]])

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        expected = [
            float(model(**tokenizer([first], [second], return_tensors="pt")).logits.sigmoid())
            for first, second in PAIRS
        ]
    found = ask()
    assert found == pytest.approx([*expected, expected[0]], abs=1e-5)
    assert ask() == found
    assert len(loaded) == 1


def test_a_model_of_several_classes_is_no_cross_encoder(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"probe\.similarity=.* has 3 classes, and one number is wanted"
    ):
        find_cross_encoder(str(save_classifier(tmp_path / "nli")))


def test_the_model_itself_says_what_entails_what(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = checkpoint("llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    asked: list[int] = []

    def read(prompts: list[tuple[int, ...]], options: list[Continuations]) -> OptionReading:
        asked.append(len(prompts))
        return read_options(
            prompts,
            options,
            batch_size="auto",
            description={"model": "random"},
            store_dir=str(tmp_path),
            tokenizer=tokenizer,
            open_model=lambda: LoadedModel(model, load_s=0.0),
            progress=Progress(Console(file=io.StringIO())),
        )

    own = OwnEntailments(read, ChatTemplate(tokenizer, None))
    relations = own.relations([*PAIRS, PAIRS[1]])
    assert asked == [len(PAIRS)]
    assert own(PAIRS) == [entails(one) for one in relations[:-1]]
    assert asked == [len(PAIRS)]
    for (first, second), found in zip(PAIRS, relations, strict=False):
        prompt = (
            f"Text 1: {first}\nText 2: {second}\nDoes text 1 entail text 2? Reply with contradiction, neutral or "
            "entailment.\nReply:"
        )
        start, sums = len(tokenizer(prompt).input_ids), []
        for word in WORDS:
            ids = tokenizer(f"{prompt} {word}", return_tensors="pt").input_ids
            with torch.inference_mode():
                logprobs = stock(ids).logits[0, :-1].log_softmax(-1)
            taken = logprobs.gather(1, ids[0, 1:, None])[start - 1 :]
            sums.append(float(taken.sum()))
        assert found == pytest.approx(torch.tensor(sums).softmax(0).tolist(), abs=1e-4)
        assert sum(found) == pytest.approx(1)
