"""What stands beside a probe: texts whose words or characters tell the labels are announced, either way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probegrid.cell.beside import baselines
from probegrid.cell.examples import Divided
from probegrid.probes.logistic import Logistic
from probegrid.probes.training import Examples

N = 160
LABELS = np.arange(N) % 2 == 0
METRICS = {"auroc": 0.5, "auroc_ci_low": 0.4, "auroc_ci_high": 0.6}


def said_of(texts: list[str], split: str = "leakfree") -> tuple[dict[str, float], set[str]]:
    """AUROC of either baseline, and which of them is announced."""
    rows = tuple(map(str, range(N)))
    examples = Examples(rows, rows, tuple(texts), rows, LABELS)
    probe = Logistic(split=split)
    activations = torch.randn(N, 1, 4, generator=torch.Generator().manual_seed(0))
    found, notes = baselines(probe, Divided.of(examples, probe), (0,), activations, METRICS, seed=0)
    announced = {name for name, note in notes.items() if "alone tell true from false" in note}
    return {name: one.value for name, one in found.items()}, announced


def name_of(row: int) -> str:
    generator = np.random.default_rng(row)
    return "".join(generator.choice(list("abcdefghijklmnop"), size=8))


def test_words_that_tell_the_label_are_announced() -> None:
    areas, announced = said_of([f"{name_of(row)} is {'red' if LABELS[row] else 'blue'}" for row in range(N)])
    assert areas["text_auroc"] == areas["text_chars_auroc"] == 1
    assert announced == {"text_auroc", "text_chars_auroc"}


def test_words_that_tell_the_label_turned_round_are_announced() -> None:
    """Each name once true, once false, one in train and one in test: the words say the opposite of the truth."""
    areas, announced = said_of([f"{name_of(row // 2)} is red" for row in range(N)], "random")
    assert areas["text_auroc"] < 0.35
    assert "text_auroc" in announced


def test_characters_that_no_word_shows_are_announced() -> None:
    areas, announced = said_of([f"{name_of(row)} is{'  ' if LABELS[row] else ' '}red" for row in range(N)])
    assert areas["text_auroc"] == pytest.approx(0.5, abs=0.15)
    assert areas["text_chars_auroc"] == 1
    assert announced == {"text_chars_auroc"}


def test_texts_that_tell_nothing_are_not() -> None:
    _, announced = said_of([f"{name_of(row)} is red" for row in range(N)])
    assert announced == set()
