"""The text baseline: learns words, ignores the test split, and gives the known numbers on 3T3L."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from probegrid.data import load
from probegrid.data.example import StatementSet
from probegrid.data.ntml import NtmlConfig
from probegrid.errors import ConfigError
from probegrid.evaluation.checks import BoolArray
from probegrid.evaluation.ranking import auroc
from probegrid.evaluation.splits import TEST, TRAIN, VALIDATION, StrArray, divide
from probegrid.probes.fitting.features import Features
from probegrid.probes.text_baseline import TextBaseline


def features(texts: Sequence[str], labels: BoolArray, parts: StrArray) -> Features:
    return Features(torch.empty(len(texts), 0, 0), (), labels, parts, tuple(texts))


LABELS = np.arange(200) % 2 == 0
PARTS = np.array([TRAIN, TRAIN, VALIDATION, TEST])[np.arange(200) // 2 % 4]


def test_words_that_tell_are_found() -> None:
    texts = [f"thing {i % 17} is {'red' if label else 'blue'}" for i, label in enumerate(LABELS)]
    known = features(texts, LABELS, PARTS)
    fitted = TextBaseline().fit(known)
    scores = fitted.score(known)
    assert scores.shape == (200, 1)
    assert auroc(LABELS[PARTS == TEST], scores[PARTS == TEST, 0]) == 1
    assert (fitted.threshold, fitted.scales) == (0, (1,))  # log-odds, an even chance


def test_texts_without_a_word_of_two_letters_are_read_by_what_stands_between_spaces() -> None:
    texts = [f"{i % 5} + {i % 4} = {'7' if label else '8'} \u2713" for i, label in enumerate(LABELS)]
    known = features(texts, LABELS, PARTS)
    assert auroc(LABELS[PARTS == TEST], TextBaseline().fit(known).score(known)[PARTS == TEST, 0]) == 1


def test_the_test_split_does_not_matter() -> None:
    texts = [f"thing {i % 17} is {i % 5}" for i in range(200)]
    others = ["something else" if part == TEST else text for text, part in zip(texts, PARTS, strict=True)]
    fitted, other = (TextBaseline().fit(features(each, LABELS, PARTS)) for each in (texts, others))
    known = features(texts, LABELS, PARTS)
    np.testing.assert_array_equal(fitted.score(known), other.score(known))


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
        known = features(texts, labels, parts)
        scores = TextBaseline().fit(known).score(known)[:, 0]
        areas.append(auroc(labels[parts == TEST], scores[parts == TEST]))
    assert np.mean(areas) == pytest.approx(expected, abs=0.025)
