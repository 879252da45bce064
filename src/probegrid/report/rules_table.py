"""How accuracy and each score's AUROC change with the rule of correctness, a row a cell, rule and score.

Knows cells, and evaluation's rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from probegrid.evaluation.intervals import Estimate
from probegrid.evaluation.languages import LANGUAGES
from probegrid.evaluation.sensitivity import verdicts_by_rule
from probegrid.evaluation.summary import evaluate_answers, flat
from probegrid.report.cell_tables import identity
from probegrid.report.cells import RecordedCell
from probegrid.report.columns import shown
from probegrid.report.tables import Table, estimate_text

_CHOSEN = "chosen"
_RESAMPLES = 300  # of verdicts by other rules than the chosen one


@dataclass(frozen=True)
class _Row:
    cell: RecordedCell
    rule: str
    score: str
    accuracy: Estimate
    auroc: Estimate


def rules_table(cells: Sequence[RecordedCell], *, seed: int) -> Table | None:
    """Every cell of an answer probe under every rule that applies to its answers; None where there is none.

    Args:
        cells: those that ended well.
        seed: of the intervals of clustered answers.
    """
    rows = [row for cell in cells if not cell.is_trained for row in _rows(cell, seed)]
    if not rows:
        return None
    columns = shown(cells)
    return Table(
        name="rules",
        caption="The same answers under other rules of correctness: answer accuracy and AUROC of each score.",
        columns=[*columns, "rule", "score", "answer accuracy", "AUROC"],
        rows=[
            [
                *map(row.cell.value, columns),
                f"{_CHOSEN} ({row.cell.rule})" if row.rule == _CHOSEN else row.rule,
                row.score.replace("_", " "),
                estimate_text(row.accuracy),
                estimate_text(row.auroc),
            ]
            for row in rows
        ],
        n_names=len(columns) + 2,
        records=[
            identity(row.cell, columns)
            | {"rule": row.rule, "chosen_rule": row.cell.rule, "score": row.score}
            | flat({"accuracy": row.accuracy, "auroc": row.auroc})
            for row in rows
        ],
    )


def _rows(cell: RecordedCell, seed: int) -> Iterator[_Row]:
    """The chosen rule first, by which all other numbers of the cell are."""
    answers = cell.references
    if answers is None:
        return
    answers = answers.loc[cell.scores.index]
    language = cell.value("dataset.language")
    verdicts = {_CHOSEN: answers["correct"].to_numpy(dtype=np.bool_)}
    verdicts |= verdicts_by_rule(
        [text if isinstance(text, str) else None for text in answers["judged"]],
        answers["references"].tolist(),
        cell.rule.partition(",")[0],
        language=language if language in LANGUAGES else None,
    )
    groups = cell.scores["group"].tolist()
    others = {name: cell.other_values[name].to_numpy(dtype=np.float64) for name in cell.whole_scores}
    metrics = {cell.value("probe"): "auroc"} | {name: f"{name}_auroc" for name in others}
    estimates: dict[bytes, Mapping[str, Estimate]] = {}  # rules that judge alike have the same intervals
    for rule, right in verdicts.items():
        found = estimates.get(right.tobytes())
        if found is None:
            found = evaluate_answers(
                right,
                cell.values,
                groups if len({*groups}) < len(groups) else None,
                seed=seed,
                resamples=_RESAMPLES,
                others=others,
            ).estimates
            if (
                rule == _CHOSEN and cell.metric("n_unscored") is None
            ):  # then as recorded, of the same examples
                found = {name: cell.estimate(name) or estimate for name, estimate in found.items()}
            estimates[right.tobytes()] = found
        for name, metric in metrics.items():
            yield _Row(cell, rule, name, found["accuracy"], found[metric])
