"""A recorded cell in a few short texts: the numbers it found, or why it failed.

Knows records and metric names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from probegrid.evaluation.metrics import is_of_probe, metric_title
from probegrid.tracking.record import CellRecord

HEADLINES = ("accuracy", "auroc")
"""What a line of a sweep's table has room for."""
ALL_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "mcc",
    "majority_accuracy",
    "option_accuracy",
    "option_accuracy_norm",
    "option_true_mass",
    "letter_mass",
    "extraction_share",
    "f1",
    "unscored_share",
    "auroc",
    "auroc_repeat_mean",
    "auroc_repeat_sd",
    "auroc_fold_sd",
    "auprc",
    "aurc",
    "augrc",
    "prr",
    "risk_at_80",
    "risk_at_90",
    "risk_at_95",
    "ece",
    "brier",
    "ece_platt",
    "brier_platt",
    "ece_isotonic",
    "brier_isotonic",
    "within_conversation_auroc",
    "text_auroc",
    "text_chars_auroc",
    "control_auroc",
    "selectivity",
)
"""What a cell says of itself at its end."""


def numbers(record: CellRecord, metrics: Sequence[str] = HEADLINES, *, with_notes: bool = False) -> list[str]:
    """What a cell found, a text a number: size, metrics with their intervals, transfer, leaks, seconds.

    Args:
        record: of the cell.
        metrics: names, in order; those the cell does not have are left out.
        with_notes: say behind a number what was noted of it.

    Returns:
        Of a failed cell, the reason alone.
    """
    if record.error is not None:
        return [reason(record)]
    transfers = [name for name in record.metrics if is_transfer(name) or is_source(name)]
    found = [name for name in (*metrics, *transfers) if name in record.metrics]
    notes = _told_once(record, found) if with_notes else {}
    texts = [*_size(record), *(_number(record, name, notes.get(name)) for name in found)]
    texts += [
        f"{name}: {record.notes[name]}" for name in ("leakage", "split", "probe") if name in record.notes
    ]
    return [*texts, *_seconds(record)]


def reason(record: CellRecord) -> str:
    """Why a cell failed, in one line; empty where it did not."""
    if record.error is None:
        return ""
    return f"{record.error.type}: {record.error.message.strip().partition(chr(10))[0]}"


def is_transfer(metric: str) -> bool:
    """Whether a metric is the AUROC on another dataset, and not an end of its interval."""
    return metric.startswith("transfer_auroc_") and not metric.endswith(("_ci_low", "_ci_high"))


def is_source(metric: str) -> bool:
    """Whether a metric is the AUROC of a source that was left out, and not an end of its interval."""
    return metric.startswith("source_auroc_") and not metric.endswith(("_ci_low", "_ci_high"))


def _size(record: CellRecord) -> Iterator[str]:
    if "n" in record.metrics:
        told = {"layer": "layer {:.0f}", "joined_layers": "{:.0f} layers joined"}
        found = [text.format(record.metrics[name]) for name, text in told.items() if name in record.metrics]
        yield ", ".join([f"n {record.metrics['n']:.0f}", *found])


def _told_once(record: CellRecord, names: Sequence[str]) -> dict[str, str]:
    """What stands behind each number: ECE's companions and its note; the note of the one before is not said again."""
    told: dict[str, str] = {}
    before = None
    for name in names:
        note = record.notes.get(name)
        said = [*_beside(record, name), *([("as above" if note == before else note)] if note else [])]
        told[name] = "; ".join(said)
        before = note or before
    return told


def _number(record: CellRecord, name: str, told: str | None) -> str:
    """``answer accuracy 0.583 [0.536, 0.632]``; where it is not a number, the reason that was noted."""
    value, note = record.metrics[name], record.notes.get(name)
    title = metric_title(name, of_probe=is_of_probe(record.metrics))
    if value != value:
        return f"{title} undefined{f': {note}' if note else ''}"
    low, high = (record.metrics.get(f"{name}_ci_{end}", float("nan")) for end in ("low", "high"))
    interval = f" [{low:.3f}, {high:.3f}]" if low == low else ""
    return f"{title} {value:.3f}{interval}{f' ({told})' if told else ''}"


def _beside(record: CellRecord, name: str) -> list[str]:
    """What an ECE is read with: how large chance alone makes it, what is left beyond, and the test of it."""
    told = {"ece_noise_floor": "noise floor", "ece_debiased": "debiased", "calibration_p": "p of calibration"}
    found = {said: record.metrics[of] for of, said in told.items() if name == "ece" and of in record.metrics}
    return [", ".join(f"{said} {value:.3f}" for said, value in found.items())] if found else []


def _seconds(record: CellRecord) -> Iterator[str]:
    """The seconds of loading (where the cell itself loaded) and reading, the rate, and the cell's own in all."""
    metrics = record.metrics
    parts = [f"load {metrics['load_s']:.1f} s"] if metrics.get("load_s") else []
    if "read_s" in metrics:
        note = record.notes.get("read_s")
        parts.append(f"read {metrics['read_s']:.1f} s{f' ({note})' if note else ''}")
    if "tokens_per_s" in metrics:
        each = f" each of {record.readers}" if record.readers > 1 else ""
        parts.append(f"{metrics['tokens_per_s']:.0f} tokens/s{each}")
    yield ", ".join([*parts, f"{record.provenance.seconds:.1f} s in all"])
