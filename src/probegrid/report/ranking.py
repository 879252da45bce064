"""Every score of the same answers in one order: how well it tells right from wrong, against G-NLL, at what cost.

Knows cells that asked one model the same prompts, their scores and the judges' seconds; nothing of how a score is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from probegrid.evaluation.intervals import Estimate
from probegrid.evaluation.paired import Difference, compare_areas, holm, simultaneous_ends
from probegrid.report.cells import GROUPS, RecordedCell
from probegrid.report.columns import label, varying
from probegrid.report.pairing import all_else
from probegrid.report.score_table import BASELINE, MOST_IN_MATRIX
from probegrid.report.tables import MISSING, Table, amount_text, difference_text, estimate_text, p_text

if TYPE_CHECKING:
    import pandas as pd

ALL_OF_THEM = "judges"
"""The probe whose own score is the baseline: its cell is named by its readings, not by it."""
_SAME_READING = ("model", "quantization", "device_map", "dataset")


@dataclass(frozen=True)
class Score:
    """A score of some answers.

    Attributes:
        name: of a judge, or of the cell whose probe gives it.
        cell: where it is recorded.
        area: its AUROC.
        values: by example id: group, label and value, of the examples that have it.
        reads: the readings that it takes, by name; empty where that is not recorded.
        seconds: of those readings and of its formula; None where that is not recorded.
    """

    name: str
    cell: RecordedCell
    area: Estimate
    values: pd.DataFrame
    reads: tuple[str, ...]
    seconds: float | None

    @property
    def n(self) -> int:
        """Examples that have it."""
        return len(self.values)


@dataclass(frozen=True)
class Ranked:
    """A score beside the baseline, on the examples that have both."""

    score: Score
    difference: Difference | None
    """AUROC less the baseline's; None of the baseline itself, and where one class is missing."""
    p_holm: float
    tests: int
    """Comparisons of the family."""

    @property
    def together(self) -> tuple[float, float]:
        """Ends that hold together with those of all comparisons."""
        assert self.difference is not None
        return simultaneous_ends(self.difference, self.p_holm, self.tests)

    @property
    def is_alike(self) -> bool:
        """Whether it is not the baseline and does not differ from it."""
        return self.score.name != BASELINE and not self.differs

    @property
    def differs(self) -> bool:
        """Whether it ranks otherwise than the baseline after Holm."""
        return self.difference is not None and self.p_holm < 0.05


@dataclass(frozen=True)
class Ranking:
    """The scores of one model's answers to the same prompts, best first."""

    cells: tuple[RecordedCell, ...]
    rows: tuple[Ranked, ...]

    @cached_property
    def title(self) -> str:
        """What the answers are of."""
        return " ".join(self.cells[0].value(group) for group in _SAME_READING)


def rankings(cells: Sequence[RecordedCell], *, seed: int, flips: int = 2000) -> list[Ranking]:
    """A ranking for each set of answers with more scores than a matrix holds, the baseline among them.

    Answers are the same where the cells differ in the probe alone, and their texts and verdicts do not.

    Args:
        cells: those that ended well.
        seed: of the drawing alone.
        flips: flippings of signs drawn behind each p-value.
    """
    blocks: dict[tuple[object, ...], list[RecordedCell]] = {}
    for cell in cells:
        if cell.answers_digest is not None:
            blocks.setdefault((all_else(cell, "probe"), cell.answers_digest), []).append(cell)
    found = [_ranking(block, seed=seed, flips=flips) for block in blocks.values()]
    return [one for one in found if one is not None]


def told_by(found: Sequence[Ranking], cells: Sequence[RecordedCell]) -> list[str]:
    """The columns that tell rankings apart: those that vary between their cells, and within none."""
    return [
        name
        for name in varying(cells)
        if len(found) > 1 and all(len({cell.value(name) for cell in one.cells}) == 1 for one in found)
    ]


def _ranking(block: Sequence[RecordedCell], *, seed: int, flips: int) -> Ranking | None:
    scores: dict[str, Score] = {}
    for cell in block:
        for score in _scores(cell, block):
            if score.name not in scores or score.n > scores[score.name].n:
                scores[score.name] = score
    if BASELINE not in scores or len(scores) <= MOST_IN_MATRIX:
        return None
    base = scores.pop(BASELINE)
    compared = [_against(score, base, seed=seed, flips=flips) for score in scores.values()]
    p_values = [math.nan if one is None else one.p_value for one in compared]
    tests = sum(one is not None for one in compared)
    rows = [
        Ranked(score, one, float(p_holm), tests)
        for score, one, p_holm in zip(scores.values(), compared, holm(p_values), strict=True)
    ]
    rows.append(Ranked(base, None, math.nan, tests))
    order = sorted(rows, key=lambda row: (math.isnan(row.score.area.value), -row.score.area.value))
    return Ranking(tuple(block), tuple(order))


def _scores(cell: RecordedCell, block: Sequence[RecordedCell]) -> list[Score]:
    """The scores of a cell: its probe's own, and those of the judges."""
    found = []
    own = cell.value("probe")
    area = cell.estimate("auroc")
    if own != ALL_OF_THEM and cell.has_one_scale and area is not None:
        alike = [each for each in block if each.value("probe") == own]
        name = own if len(alike) == 1 else f"{own} {label(cell, varying(alike))}"
        is_of_states = not {"layer", "joined_layers"}.isdisjoint(cell.record.metrics)
        reads: tuple[str, ...] = ("answers", "activations") if is_of_states else ()
        found.append(Score(name, cell, area, cell.scores, reads, cell.metric("read_s")))
    for name in cell.other_scores:
        area = cell.estimate(f"{name}_auroc")
        if area is None:
            continue
        values = cell.scores[["group", "label"]].assign(score=cell.other_values[name])
        reads, seconds = cell.judges.get(name, ((), None))
        found.append(Score(name, cell, area, values[values["score"].notna()], reads, seconds))
    return found


def _against(score: Score, base: Score, *, seed: int, flips: int) -> Difference | None:
    both = score.values.join(base.values["score"].rename("base"), how="inner")
    labels = both["label"].to_numpy(dtype=bool)
    if not len(both) or labels.all() or not labels.any():
        return None
    groups = both["group"].tolist()
    alone = None if len({*groups}) == len(groups) else groups
    first, second = (both[name].to_numpy(dtype=float) for name in ("score", "base"))
    return compare_areas((labels, first), (labels, second), alone, seed=seed, flips=flips)


def ranking_table(found: Sequence[Ranking], cells: Sequence[RecordedCell]) -> Table | None:
    """A row a score, best first: AUROC, less G-NLL's on the same answers, seconds; None where there is no ranking."""
    if not found:
        return None
    columns = told_by(found, cells)
    rows = [(one, row) for one in found for row in one.rows]
    tests = sorted({row.tests for _, row in rows})
    return Table(
        name="ranking",
        caption="Scores of the same answers, best first. AUROC with its 95% interval; minus that of G-NLL on the "
        f"answers that have both, 95% intervals that hold together, p after Holm over {' or '.join(map(str, tests))} "
        "comparisons; seconds of the readings that a score takes, whoever else takes them too, and of its formula.",
        columns=[*columns, "score", "n", "AUROC", "minus G-NLL", "p", "seconds", "of readings"],
        rows=[
            [
                *(row.score.cell.value(name) for name in columns),
                row.score.name.replace("_", " "),
                str(row.score.n),
                estimate_text(row.score.area) if row.score.n else "no answer has it",
                _difference_text(row),
                p_text(row.p_holm),
                MISSING if row.score.seconds is None else amount_text(row.score.seconds),
                ", ".join(row.score.reads).replace("_", " ") or MISSING,
            ]
            for _, row in rows
        ],
        n_names=len(columns) + 1,
        records=[_record(row) for _, row in rows],
    )


def _difference_text(row: Ranked) -> str:
    if row.difference is None:
        return MISSING
    if row.difference.value == 0 and row.difference.p_value == 1:
        return "same order"
    low, high = row.together
    return difference_text(Estimate(row.difference.value, low, high, 0))


def _record(row: Ranked) -> dict[str, object]:
    score = row.score
    found: dict[str, object] = {name: score.cell.value(name) for name in GROUPS}
    found |= {"key": score.cell.record.cell, "score": score.name, "n": score.n, "auroc": score.area.value}
    found |= {"auroc_ci_low": score.area.low, "auroc_ci_high": score.area.high}
    if row.difference is not None:
        low, high = row.together
        found |= {
            "minus_gnll": row.difference.value,
            "minus_gnll_low_together": low,
            "minus_gnll_high_together": high,
            "p_value": row.difference.p_value,
            "p_holm": row.p_holm,
        }
    return found | {"seconds": score.seconds, "readings": " ".join(score.reads)}
