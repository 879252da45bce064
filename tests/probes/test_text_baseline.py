"""The text baseline: learns words, ignores the test split, and gives the known numbers on 3T3L."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from probegrid.data import load
from probegrid.data.example import StatementSet
from probegrid.data.ntml import NtmlConfig
from probegrid.errors import ConfigError
from probegrid.evaluation.ranking import auroc
from probegrid.evaluation.splits import TEST, TRAIN, VALIDATION, divide
from probegrid.probes.text_baseline import TextBaseline

LABELS = np.arange(200) % 2 == 0
PARTS = np.array([TRAIN, TRAIN, VALIDATION, TEST])[np.arange(200) // 2 % 4]


def test_words_that_tell_are_found() -> None:
    texts = [f"thing {i % 17} is {'red' if label else 'blue'}" for i, label in enumerate(LABELS)]
    fitted = TextBaseline().fit(texts, LABELS, PARTS)
    scores = fitted.scores(texts)
    assert auroc(LABELS[PARTS == TEST], scores[PARTS == TEST]) == 1
    assert ((fitted.probabilities(scores) > 0.5) == (scores > 0)).all()


def test_the_test_split_does_not_matter() -> None:
    texts = [f"thing {i % 17} is {i % 5}" for i in range(200)]
    others = ["something else" if part == TEST else text for text, part in zip(texts, PARTS, strict=True)]
    fitted, other = (TextBaseline().fit(each, LABELS, PARTS) for each in (texts, others))
    np.testing.assert_array_equal(fitted.scores(texts), other.scores(texts))


@pytest.mark.parametrize("values", [{"ngrams": 0}, {"C": 0.0}, {"split": "none"}])
def test_values_that_cannot_be_are_refused(values: dict[str, float | str]) -> None:
    with pytest.raises(ConfigError, match=f"probe.{next(iter(values))}="):
        TextBaseline(**values)  # type: ignore[arg-type]


@pytest.mark.skipif("PROBEGRID_DATA" not in os.environ, reason="PROBEGRID_DATA is not set")
@pytest.mark.parametrize(
    ("method", "expected"), [("random", 0.645), ("by_conversation", 0.658), ("leakfree", 0.483)]
)
def test_known_numbers_on_3t3l(method: str, expected: float) -> None:
    path = Path(os.environ["PROBEGRID_DATA"]) / "ntml/3T3L_500samples.jsonl"
    loaded = load(NtmlConfig(path=str(path), num_samples=500))
    assert isinstance(loaded, StatementSet)
    rows = [(row, talk.id) for talk in loaded.conversations for row in talk.statements]
    labels = np.array([row.label for row, _ in rows])
    texts, talks = [row.text for row, _ in rows], [talk for _, talk in rows]
    areas = []
    for seed in range(4):
        parts = divide(method, labels, talks, texts, texts, seed=seed).folds[0].parts
        scores = TextBaseline().fit(texts, labels, parts).scores(texts)
        areas.append(auroc(labels[parts == TEST], scores[parts == TEST]))
    assert np.mean(areas) == pytest.approx(expected, abs=0.025)
