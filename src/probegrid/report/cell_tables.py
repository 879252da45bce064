"""The tables of a report: every cell's numbers, its companion scores, and the cells that failed.

Knows cells and metric names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from probegrid.evaluation.metrics import metric_title
from probegrid.evaluation.summary import (
    NO_INTERVAL,
    NO_OWN_SCORES,
    NO_SCORES,
    OF_SOME,
    SAFE_SIDE,
    SMALL_SAMPLES,
)
from probegrid.report.cells import GROUPS, RecordedCell
from probegrid.report.columns import common, label, shown
from probegrid.report.seeds import OverSeeds, over_seeds
from probegrid.report.summary import is_source, is_transfer, reason
from probegrid.report.tables import MISSING, Table, estimate_text

LEAKY = "†"
"""Stands after the numbers of a cell whose split leaks."""

FEW = "*"
"""Stands after an interval that few examples of a class, or few clusters, are behind."""

WIDE = "§"
"""Stands after an interval on the safe side."""

MAIN_METRICS = ("accuracy", "auroc")
"""What the terminal shows."""
MORE_METRICS = (
    "balanced_accuracy",
    "mcc",
    "majority_accuracy",
    "auprc",
    "aurc",
    "augrc",
    "prr",
    "prr_f1",
    "risk_at_80",
    "risk_at_90",
    "risk_at_95",
    "ece",
    "ece_noise_floor",
    "ece_debiased",
    "calibration_p",
    "brier",
    "ece_platt",
    "brier_platt",
    "ece_isotonic",
    "brier_isotonic",
    "text_auroc",
    "text_chars_auroc",
    "control_auroc",
    "selectivity",
    "auroc_fold_sd",
    "auroc_repeat_mean",
    "auroc_repeat_sd",
)
"""What the page shows besides, where any cell has it."""
_OF_TEXTS = ("text_auroc", "text_chars_auroc")
_OVER_SEEDS = (
    "Mean, standard deviation and number of cells that differ in seeds alone; others with their 95% intervals"
)
ACCURACY_OF = {False: "answers", True: "the probe's calls"}
"""What `accuracy` and `f1` are of in the files, where both kinds have one key; by whether a probe was trained."""


def cells_table(cells: Sequence[RecordedCell], *, is_wide: bool = False) -> Table:
    """A row a cell that ended well: what varies, the number of examples, each metric with its interval.

    Args:
        cells: those that ended well, at least one.
        is_wide: with more metrics, and transfer.
    """
    together = over_seeds(cells)
    merged = [one.merged for one in together]
    names, of_all = shown(merged), shown(cells)
    metrics = _metric_columns(
        merged, (*MAIN_METRICS, *MORE_METRICS, *_elsewhere(merged)) if is_wide else MAIN_METRICS
    )
    has_layers = is_wide and any(_layer(one) != MISSING for one in together)
    rows = [
        [
            *map(one.merged.value, names),
            f"{one.merged.record.metrics['n']:.0f}",
            *([_layer(one)] if has_layers else []),
            *(_number(one, column) for column in metrics),
        ]
        for one in together
    ]
    titles = [metric_title(column.metric, of_probe=bool(column.of_probe)) for column in metrics]
    return Table(
        name="table",
        caption=_caption(cells, names, is_over_seeds=len(merged) < len(cells)),
        columns=[*names, "n", *(["layer"] if has_layers else []), *titles],
        rows=rows,
        n_names=len(names),
        records=[_record(cell, of_all) for cell in cells],
        notes=[
            *_leaks(cells),
            *_reasons(
                (one, column.metric) for one in together for column in metrics if _has(one.merged, column)
            ),
            *_unscored(cells, of_all),
            *_announced(merged, names),
            *_versions(cells),
        ],
        cells=[(one.cells[0].record.cell,) for one in together],
    )


def _layer(one: OverSeeds) -> str:
    """The layer that was chosen; of cells that differ in seeds, all that were."""
    layers = sorted({cell.record.metrics["layer"] for cell in one.cells if "layer" in cell.record.metrics})
    return ", ".join(f"{layer:.0f}" for layer in layers) or MISSING


@dataclass(frozen=True)
class _Column:
    """A metric, and whether it is of cells whose probe was trained, or not, or of both."""

    metric: str
    of_probe: bool | None


def _metric_columns(cells: Sequence[RecordedCell], metrics: Sequence[str]) -> list[_Column]:
    """A column a metric that any cell has; accuracy is one of answers and one of a probe's calls."""
    columns = [
        _Column(metric, of_probe)
        for metric in metrics
        for of_probe in ((False, True) if metric == "accuracy" else (None,))
    ]
    return [column for column in columns if any(_has(cell, column) for cell in cells)]


def _has(cell: RecordedCell, column: _Column) -> bool:
    return cell.metric(column.metric) is not None and column.of_probe in (None, cell.is_trained)


def _elsewhere(cells: Sequence[RecordedCell]) -> list[str]:
    """AUROCs on the sources that were left out, and on other datasets."""
    names = dict.fromkeys(name for cell in cells for name in cell.record.metrics)
    return [name for of in (is_source, is_transfer) for name in names if of(name)]


def other_scores_table(cells: Sequence[RecordedCell]) -> Table | None:
    """A row a cell and a score that came from the same reading: its AUROC; None where no cell has any.

    Cells that differ in seeds alone share a row, as in the table of cells.
    """
    together = over_seeds(cells)
    merged = [one.merged for one in together]
    pairs = [
        (one, name)
        for one in together
        for name in one.merged.other_scores
        if one.merged.metric(f"{name}_auroc") is not None
    ]
    if not pairs:
        return None
    columns, of_all = shown(merged), shown(cells)
    return Table(
        name="other_scores",
        caption="Other scores of the same readings."
        + (f" {_OVER_SEEDS}." if len(merged) < len(cells) else ""),
        columns=[*columns, "score", "AUROC"],
        rows=[
            [
                *map(one.merged.value, columns),
                name.replace("_", " "),
                _estimate(one, f"{name}_auroc"),
            ]
            for one, name in pairs
        ],
        notes=[
            *_reasons((one, f"{name}_auroc") for one, name in pairs),
            *_told_together(
                (f"AUROC {note}", f"{label(cell, columns)} {name.replace('_', ' ')}".strip())
                for one, name in pairs
                for cell in one.cells
                if OF_SOME in (note := cell.record.notes.get(f"{name}_auroc", ""))
            ),
        ],
        n_names=len(columns) + 1,
        records=[
            identity(cell, of_all) | {"score": name} | _ends(cell, f"{name}_auroc")
            for one, name in pairs
            for cell in one.cells
            if cell.metric(f"{name}_auroc") is not None
        ],
    )


def failed_table(cells: Sequence[RecordedCell]) -> Table | None:
    """A row a cell that failed and the reason; None where none did."""
    if not cells:
        return None
    columns = shown(cells)
    reasons = [reason(cell.record) or MISSING for cell in cells]
    return Table(
        name="failed",
        caption=f"{len(cells)} cells failed.",
        columns=[*columns, "reason"],
        rows=[[*map(cell.value, columns), why] for cell, why in zip(cells, reasons, strict=True)],
        n_names=len(columns) + 1,
        records=[identity(cell, columns) | {"reason": why} for cell, why in zip(cells, reasons, strict=True)],
    )


def _number(one: OverSeeds, column: _Column) -> str:
    cell = one.merged
    if not _has(cell, column):
        return MISSING
    return f"{_estimate(one, column.metric)}{f' {LEAKY}' if cell.leakage else ''}"


def _estimate(one: OverSeeds, metric: str) -> str:
    """A metric over seeds, or with its interval, which is marked where it need not cover, and where it is wide."""
    if (text := one.text(metric)) is not None:
        return text
    value = one.merged.metric(metric)
    if value is not None and f"{metric}_ci_low" not in one.merged.record.metrics:
        return f"{value:.3f}"  # of a kind that has no interval
    note = one.merged.record.notes.get(metric, "")
    if note in (NO_SCORES, NO_OWN_SCORES):
        return f"undefined: {note}"
    mark = f" {FEW}" if SMALL_SAMPLES in note else f" {WIDE}" if SAFE_SIDE in note else ""
    return f"{estimate_text(one.merged.estimate(metric))}{mark}"


def small_samples(counts: Iterable[str]) -> list[str]:
    """What the mark after an interval means, and how few stand behind those that have it; nothing for none."""
    return _marked(FEW, SMALL_SAMPLES, counts)


def _marked(mark: str, meaning: str, whys: Iterable[str]) -> list[str]:
    found = dict.fromkeys(filter(None, whys))
    return [f"{mark} {meaning}: {'; '.join(found)}."] if found else []


def _reasons(shown: Iterable[tuple[OverSeeds, str]]) -> list[str]:
    """What the marks after intervals mean, and why some have none."""
    notes = dict.fromkeys(
        one.merged.record.notes.get(metric, "") for one, metric in shown if len(one.cells) == 1
    )
    return [
        *small_samples(note.partition(":")[0] for note in notes if SMALL_SAMPLES in note),
        *_marked(WIDE, SAFE_SIDE, (note.partition(":")[0] for note in notes if SAFE_SIDE in note)),
        *([f"({NO_INTERVAL})"] if NO_INTERVAL in notes else []),
    ]


def _record(cell: RecordedCell, columns: Sequence[str]) -> dict[str, object]:
    of = {"accuracy_of": ACCURACY_OF[cell.is_trained]} if "accuracy" in cell.record.metrics else {}
    return identity(cell, columns) | of | dict(cell.record.metrics)


def identity(cell: RecordedCell, columns: Sequence[str]) -> dict[str, object]:
    """What names a cell, for programs: all its choices, the columns that are shown, its key."""
    named = {name: cell.value(name) for name in dict.fromkeys((*GROUPS, *columns))}
    return {**named, "key": cell.record.cell}


def _ends(cell: RecordedCell, name: str) -> dict[str, object]:
    estimate = cell.estimate(name)
    assert estimate is not None
    return {"auroc": estimate.value, "auroc_ci_low": estimate.low, "auroc_ci_high": estimate.high}


def _caption(cells: Sequence[RecordedCell], columns: Sequence[str], *, is_over_seeds: bool) -> str:
    shared = ", ".join(f"{group} {value}" for group, value in common(cells, columns).items())
    count = f"{len(cells)} cells" if len(cells) > 1 else "1 cell"
    values = _OVER_SEEDS if is_over_seeds else "Values with their 95% intervals"
    return f"{count}{f', all with {shared}' if shared else ''}. {values}."


def _leaks(cells: Sequence[RecordedCell]) -> list[str]:
    reasons = dict.fromkeys(cell.leakage for cell in cells if cell.leakage)
    return [f"{LEAKY} too good, for something leaks: {'; '.join(reasons)}"] if reasons else []


def _announced(cells: Sequence[RecordedCell], columns: Sequence[str]) -> list[str]:
    """Texts that tell the labels without any model, with the cells whose texts they are."""
    return _told_together(
        (note, label(cell, columns) or cell.value("dataset"))
        for cell in cells
        for metric in _OF_TEXTS
        if (note := cell.record.notes.get(metric))
    )


def _unscored(cells: Sequence[RecordedCell], columns: Sequence[str]) -> list[str]:
    """Of how many answers the numbers of a ranking are, where a probe gives some no score."""
    return _told_together(
        (
            f"AUROC and what else is of a ranking: of the {n - lacking:.0f} of {n:.0f} answers that have a score",
            label(cell, columns) or cell.value("probe"),
        )
        for cell in cells
        if (lacking := cell.metric("n_unscored")) and (n := cell.metric("n"))
    )


def _told_together(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Notes, each once, with the names of what it is of."""
    named: dict[str, list[str]] = {}
    for note, name in notes:
        named.setdefault(note, []).append(name)
    return [f"{note}: {'; '.join(names)}." for note, names in named.items()]


def _versions(cells: Sequence[RecordedCell]) -> list[str]:
    """What to know of cells that were not all made with the same packages."""
    by_package: dict[str, dict[str, None]] = {}
    for cell in cells:
        for package, version in cell.record.versions.items():
            by_package.setdefault(package, {})[version] = None
    mixed = [f"{package} {', '.join(found)}" for package, found in by_package.items() if len(found) > 1]
    return [f"The cells were made with different versions: {'; '.join(mixed)}."] if mixed else []
