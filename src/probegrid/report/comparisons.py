"""Paired comparisons of cells on the examples they share: differences, intervals, p-values, agreement of answers.

Knows the scores and answers of pairs of cells, and evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probegrid.evaluation.agreement import Agreement, agreement
from probegrid.evaluation.checks import BoolArray, FloatArray
from probegrid.evaluation.paired import (
    Difference,
    compare_areas,
    compare_shares,
    holm,
    simultaneous_ends,
)
from probegrid.evaluation.shares import Standing
from probegrid.evaluation.splits import joined_groups
from probegrid.report.cells import RecordedCell
from probegrid.report.pairing import Pair, Unpaired, find_pairs

if TYPE_CHECKING:
    import pandas as pd

SAME_ANSWERS = "same answers"
SAME_SCORES = "same scores"
DIFFERENT_ACCURACIES = "answers against calls"
_FEWEST = 2

_Columns = tuple[BoolArray, FloatArray, BoolArray]


@dataclass(frozen=True)
class Contrast:
    """One metric of two cells.

    Attributes:
        difference: first - second; `None` where there is nothing to compare.
        note: why not; empty where there is a difference.
        numbers: what it was computed from, so that the same test is counted once.
        p_holm: p-value corrected over the family of comparisons; `nan` where there is none.
        together: ends of the interval that holds together with those of the whole family, and agrees with ``p_holm``.
    """

    difference: Difference | None
    note: str
    numbers: bytes
    p_holm: float = float("nan")
    together: tuple[float, float] = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Comparison:
    """Two cells on the examples that both were tested on.

    Attributes:
        pair: the cells.
        n: examples shared.
        accuracy: of the answers, or of the calls of trained probes; the two are not compared with each other.
        auroc: of each cell's own scores against its own labels. Two models are right on different questions: each
            area is of its own labels, and the two are paired in that a resample draws the same examples for both.
        answers: how far the answers themselves agree; `None` where a cell has none.
        few_groups: how few groups are behind both differences, in words; empty where there are enough.
        few: the same, and how few examples of a class are behind that of the AUROCs.
    """

    pair: Pair
    n: int
    accuracy: Contrast
    auroc: Contrast
    answers: Agreement | None
    few_groups: str = ""
    few: str = ""


@dataclass(frozen=True)
class Comparisons:
    """All comparisons in one group or key.

    Attributes:
        compared: the group or key.
        made: the comparisons.
        not_made: what could not be compared, with the reason.
        n_tests: p-values that Holm's correction counts. Comparisons of the same numbers (probes that share their
            answers share their accuracy) are one test.
        family: whose comparisons these tests are, in words.
    """

    compared: str
    made: Sequence[Comparison]
    not_made: Sequence[Unpaired]
    n_tests: int
    family: str


def compare_cells(
    cells: Sequence[RecordedCell],
    compared: str,
    *,
    seed: int,
    resamples: int = 2000,
    family: Sequence[RecordedCell] | None = None,
) -> Comparisons:
    """Compare every two cells that differ in one group or key alone.

    Args:
        cells: those that ended well.
        compared: the group or key.
        seed: of the drawing alone.
        resamples: flippings of signs drawn behind each p-value.
        family: cells that ended well whose comparisons are corrected for too, those of ``cells`` among them; None:
            these alone. A filter that shows fewer cells need not make a p-value smaller.

    Raises:
        ConfigError: no such group or key, or all cells have the same.
    """
    pairs, not_made = find_pairs(cells, compared)
    made, unmade = _compared(pairs, seed=seed, resamples=resamples)
    tests = _tests(made)
    if family is not None and len(family) > len(cells):
        known = {_ids(pair) for pair in pairs}
        further = [pair for pair in find_pairs(family, compared)[0] if _ids(pair) not in known]
        tests |= _tests(_compared(further, seed=seed, resamples=resamples)[0])
    adjusted = dict(zip(tests, holm(list(tests.values())).tolist(), strict=True))
    count = sum(not math.isnan(p_value) for p_value in adjusted.values())
    corrected = [
        replace(one, accuracy=_with(one.accuracy, adjusted, count), auroc=_with(one.auroc, adjusted, count))
        for one in made
    ]
    of = len(cells if family is None else family)
    name = f"{compared} in accuracy and AUROC, of {'all' if family is None else 'all recorded'} {of} cells"
    return Comparisons(compared, corrected, [*not_made, *unmade], count, name)


def _compared(pairs: Sequence[Pair], *, seed: int, resamples: int) -> tuple[list[Comparison], list[Unpaired]]:
    made: list[Comparison] = []
    not_made: list[Unpaired] = []
    for pair in pairs:
        shared = _Shared.of(pair)
        if reason := shared.obstacle():
            not_made.append(Unpaired((pair.first, pair.second), reason))
        else:
            made.append(shared.compare(seed=seed, resamples=resamples))
    return made, not_made


def _ids(pair: Pair) -> tuple[str, str]:
    return pair.first.record.cell, pair.second.record.cell


def _tests(made: Sequence[Comparison]) -> dict[bytes, float]:
    """All p-values, those of the same numbers once; by the numbers."""
    contrasts = [contrast for one in made for contrast in (one.accuracy, one.auroc)]
    return {one.numbers: one.difference.p_value for one in contrasts if one.difference is not None}


def _with(contrast: Contrast, adjusted: Mapping[bytes, float], tests: int) -> Contrast:
    if contrast.difference is None:
        return contrast
    p_holm = adjusted[contrast.numbers]
    ends = simultaneous_ends(contrast.difference, p_holm, tests)
    return replace(contrast, p_holm=p_holm, together=ends)


def at(table: pd.DataFrame, ids: pd.Index) -> pd.DataFrame:
    """The rows of these ids in their order; the table itself where it has them so, for a look-up takes long."""
    return table if table.index.equals(ids) else table.loc[ids]


def shared_ids(pair: Pair) -> tuple[pd.Index, int]:
    """The test examples that two cells have in common, and how many of one id are not the same.

    An id may be no more than a row's number: two files have it, and one file before and after it was edited. Examples
    are the same where they ask the same and, under one config of the data, are held against the same.
    """
    first, second = pair.first.scores, pair.second.scores
    ids = first.index.intersection(second.index, sort=False)
    same = np.ones(len(ids), dtype=np.bool_)
    columns = (_data(cell, ids, with_truth=pair.same_data) for cell in (pair.first, pair.second))
    for one, other in zip(*columns, strict=False):
        same &= one == other
    return ids[same], int((~same).sum())


def _data(cell: RecordedCell, ids: pd.Index, *, with_truth: bool) -> list[NDArray[Any]]:
    """What examples ask and, if wanted, what they are held against; nothing where no table holds it."""
    if cell.texts is None:
        return []
    texts = cell.texts.reindex(ids)
    truth = texts["reference"] if "reference" in texts else cell.scores["label"].reindex(ids)
    return [texts["question"].to_numpy(), *([truth.to_numpy()] if with_truth else [])]


@dataclass(frozen=True)
class _Shared:
    """The test examples of two cells, joined by example_id: columns group, label, score and answer of each."""

    pair: Pair
    first: pd.DataFrame
    second: pd.DataFrame
    n_others: int

    @classmethod
    def of(cls, pair: Pair) -> _Shared:
        ids, n_others = shared_ids(pair)
        return cls(pair, at(pair.first.scores, ids), at(pair.second.scores, ids), n_others)

    def obstacle(self) -> str | None:
        """Why the two cannot be compared, if they cannot."""
        if len(self.first) < _FEWEST:
            others = (
                f"; {self.n_others} have equal ids but other questions or truths" if self.n_others else ""
            )
            return f"{len(self.first)} test examples in common{others}"
        if any(cell.metric("auroc") is None for cell in (self.pair.first, self.pair.second)):
            return "statements without labels"
        if not (self.pair.first.has_one_scale and self.pair.second.has_one_scale):
            return "scores of several folds, each on a scale of its own"
        return None

    def compare(self, *, seed: int, resamples: int) -> Comparison:
        """Every difference, groups whole."""
        groups = joined_groups(self.first["group"].tolist(), self.second["group"].tolist())
        columns, answers = self._columns(), self._answers()
        examples = "\n".join(self.first.index).encode()
        (labels, scores, right), (other_labels, other_scores, other_right) = columns
        area = (labels, scores, other_labels, other_scores)
        alone = None if len({*groups}) == len(groups) else groups
        found = {
            "accuracy": compare_shares(right, other_right, alone, seed=seed, flips=resamples),
            "auroc": compare_areas(
                (labels, scores), (other_labels, other_scores), alone, seed=seed, flips=resamples
            ),
        }
        notes = self._notes(columns, answers)
        numbers = (
            b"".join([b"accuracy", examples, right.tobytes(), other_right.tobytes()]),
            b"".join([b"auroc", examples, *(array.tobytes() for array in area)]),
        )
        accuracy, auroc = (
            Contrast(None if note else found[name], note, of)
            for name, note, of in zip(("accuracy", "auroc"), notes, numbers, strict=True)
        )
        standing = [Standing.of(each, alone) for each in (labels, other_labels)]
        fewest = min(standing, key=lambda one: min(one.positives, one.negatives))
        return Comparison(
            self.pair,
            len(self.first),
            accuracy,
            auroc,
            answers,
            few_groups=fewest.few_clusters,
            few=fewest.few,
        )

    def _notes(self, columns: Sequence[_Columns], answers: Agreement | None) -> tuple[str, str]:
        """Why accuracy, and AUROC, are not compared; empty where they are."""
        same_arrays = (np.array_equal(one, other) for one, other in zip(*columns, strict=True))
        same_labels, same_scores, same_right = same_arrays
        trained = self.pair.first.is_trained
        of_area = SAME_SCORES if same_labels and same_scores else ""
        if trained != self.pair.second.is_trained:
            return DIFFERENT_ACCURACIES, of_area
        if not trained and same_right and answers is not None and answers.same_text == 1:
            return SAME_ANSWERS, of_area
        return of_area if trained and same_right else "", of_area

    def _columns(self) -> list[_Columns]:
        """Labels, scores, and what accuracy counts: of each cell."""
        columns = []
        for cell, table in ((self.pair.first, self.first), (self.pair.second, self.second)):
            labels = table["label"].to_numpy(dtype=np.bool_)
            scores = table["score"].to_numpy(dtype=np.float64)
            columns.append(
                (labels, scores, (scores > cell.threshold) == labels if cell.is_trained else labels)
            )
        return columns

    def _answers(self) -> Agreement | None:
        first, second = self.pair.first.answers, self.pair.second.answers
        if first is None or second is None:
            return None
        first, second = (at(table, self.first.index) for table in (first, second))
        return agreement(
            first["answer"].tolist(),
            second["answer"].tolist(),
            first["correct"].to_numpy(dtype=np.bool_),
            second["correct"].to_numpy(dtype=np.bool_),
        )
