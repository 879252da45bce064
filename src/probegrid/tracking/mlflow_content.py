"""What MLflow is told of a recorded cell: names, texts and limits. Imports no mlflow."""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from probegrid.tracking.escape import markdown_text
from probegrid.tracking.record import CellRecord

CELL_TAG = "probegrid.cell"
SWEEP_TAG = "probegrid.sweep"
NOTE_TAG = "mlflow.note.content"
"""The tag that the UI shows as the description of a run or an experiment."""

MAX_PARAMS_A_CALL = 100
MAX_METRICS_A_CALL = 900
"""MLflow takes 1000 entities a call in all; 100 are left to the params."""
MAX_NAME_LENGTH = 250
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000

_HEADLINES = ("accuracy", "auroc")
_INTERVAL_ENDS = ("_ci_low", "_ci_high")
VIEW_KEY = "probegrid"
"""Key of the view of the runs' table that comes with an experiment: ``...&viewStateShareKey=probegrid``."""
_VIEW_COLUMNS = {
    "params.`model`": 90,
    "params.`quantization`": 100,
    "params.`device_map`": 95,
    "params.`dataset`": 110,
    "params.`probe`": 130,
    "metrics.`accuracy`": 80,
    "metrics.`accuracy_ci_low`": 110,
    "metrics.`accuracy_ci_high`": 110,
    "metrics.`auroc`": 80,
    "metrics.`auroc_ci_low`": 90,
    "metrics.`auroc_ci_high`": 95,
}
"""Columns of that view with their widths in pixels."""
_HOW_TO_COMPARE = (
    "[**Runs with their numbers**](#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    "&viewStateShareKey={view}) (or *Model training*, top left; *Views*, top right). One run a cell, "
    "`model-quantization-dataset-probe` and what else tells it from others; a sweep's cells are the children "
    "of one run, whose description holds the grid's table and whose artifacts hold its report. To compare: select "
    "runs, press *Compare*, switch *Show diff only* on. Metrics end in `_ci_low` and `_ci_high` for their 95% "
    "intervals. Paired comparisons: `probegrid action=report report.compare=quantization`."
)


class Point(NamedTuple):
    """One value of a metric."""

    name: str
    value: float
    step: int


def params(record: CellRecord, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the choices as typed and the flattened config (``dataset.num_samples``), lists as in JSON."""
    values = dict(record.choices) | dict(flatten(config))
    return {legal_name(name): value[:MAX_PARAM_LENGTH] for name, value in values.items()}


def points(record: CellRecord) -> list[Point]:
    """Return every value of every metric; those without a course have step 0."""
    plain = [Point(legal_name(name), value, 0) for name, value in record.metrics.items()]
    stepped = [
        Point(legal_name(name), value, step) for name, pairs in record.steps.items() for step, value in pairs
    ]
    return plain + stepped


def tags(record: CellRecord) -> dict[str, str]:
    """Return the tags of a cell's run: what it is, where it comes from, what to know about its numbers."""
    origin = record.provenance
    values: dict[str, str | None] = {
        CELL_TAG: record.cell,
        SWEEP_TAG: record.sweep,
        NOTE_TAG: cell_note(record),
        "mlflow.source.name": "probegrid",
        "mlflow.source.git.commit": origin.git_commit,
        "probegrid.git_commit": origin.git_commit,
        "probegrid.git_dirty": None if origin.git_dirty is None else json.dumps(origin.git_dirty),
        "probegrid.host": origin.host,
        "probegrid.gpus": ", ".join(origin.gpus) or None,
        "probegrid.slurm_job_id": origin.slurm_job_id,
        "probegrid.command": origin.command,
        "probegrid.error": f"{record.error.type}: {record.error.message}" if record.error else None,
    }
    values |= {f"probegrid.note.{legal_name(name)}": reason for name, reason in record.notes.items()}
    return {name: value[:MAX_TAG_LENGTH] for name, value in values.items() if value}


def times_ms(record: CellRecord) -> tuple[int, int]:
    """Return when the cell started and ended, in milliseconds since 1970."""
    start_s = datetime.fromisoformat(record.provenance.started_at).timestamp()
    return round(start_s * 1000), round((start_s + record.provenance.seconds) * 1000)


def calls(
    points: Sequence[Point], params: Mapping[str, str]
) -> Iterator[tuple[Sequence[Point], dict[str, str]]]:
    """Divide what is logged into as few calls as MLflow's limits allow; one, nearly always."""
    pairs = list(params.items())
    n_calls = max(math.ceil(len(points) / MAX_METRICS_A_CALL), math.ceil(len(pairs) / MAX_PARAMS_A_CALL))
    for call in range(n_calls):
        first_point, first_param = call * MAX_METRICS_A_CALL, call * MAX_PARAMS_A_CALL
        yield (
            points[first_point : first_point + MAX_METRICS_A_CALL],
            dict(pairs[first_param : first_param + MAX_PARAMS_A_CALL]),
        )


def cell_note(record: CellRecord) -> str:
    """Describe a cell: its headline numbers with their intervals, what it is, what to know, what each metric means."""
    numbers = [_headline(record.metrics, name) for name in _HEADLINES if name in record.metrics]
    what = " · ".join(f"{group} **{markdown_text(choice)}**" for group, choice in record.choices.items())
    on = f" on {record.metrics['n']:.0f} examples" if "n" in record.metrics else ""
    parts = [f"### {', '.join(numbers)}{on}" if numbers else "", what]
    if record.error is not None:
        parts.insert(0, f"### failed: {markdown_text(f'{record.error.type}: {record.error.message}')}")
    parts += [
        f"- **{markdown_text(name)}**: {markdown_text(reason)}" for name, reason in record.notes.items()
    ]
    names = [name for name in (*record.metrics, *record.steps) if not name.endswith(_INTERVAL_ENDS)]
    return "\n\n".join([*filter(None, parts), metrics_note(names)])


def sweep_note(argv: Sequence[str], tables: Sequence[str]) -> str:
    """Describe a sweep: its command and its tables in Markdown, cut at a line where MLflow's limit is reached."""
    command = " ".join(argv).replace("`", "'")
    lines = [f"`{command}`", "", *(line for table in tables for line in (*table.splitlines(), ""))]
    return _cut_at_a_line(lines, "The tables whole, and the figures: artifacts, `report/index.html`.")


def _cut_at_a_line(lines: Iterable[str], rest: str) -> str:
    """As many lines as MLflow takes, and where the rest is."""
    kept, room = [], MAX_TAG_LENGTH - len(rest) - 1
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join([*kept, rest])


def _headline(metrics: Mapping[str, float], name: str) -> str:
    from probegrid.evaluation.metrics import is_of_probe, metric_title

    title = metric_title(name, of_probe=is_of_probe(metrics))
    ends = [metrics.get(f"{name}_ci_{end}") for end in ("low", "high")]
    return f"{title} {metrics[name]:.3f}" + ("" if None in ends else f" [{ends[0]:.3f}, {ends[1]:.3f}]")


def metrics_note(names: Iterable[str]) -> str:
    """Describe metrics in a Markdown table for the UI; those that probegrid does not define are left out."""
    from probegrid.evaluation.metrics import metric_info

    rows = []
    for name in names:
        try:
            info = metric_info(name)
        except KeyError:
            continue
        better = {True: "higher", False: "lower", None: ""}[info.higher_is_better]
        rows.append(f"| {name} | {info.description} | {info.unit} | {better} |")
    return "\n".join(["| metric | what it is | unit | better |", "|---|---|---|---|", *rows])


def experiment_note(experiment_id: str) -> str:
    """Describe an experiment: how to compare its runs, and the metrics, as many as MLflow has room for."""
    from probegrid.evaluation.metrics import METRICS

    how = _HOW_TO_COMPARE.format(experiment_id=experiment_id, view=VIEW_KEY)
    lines = [*how.splitlines(), "", *metrics_note(METRICS).splitlines(), ""]
    return _cut_at_a_line(lines, "Every run describes its own metrics.")


def experiment_tags() -> dict[str, str]:
    """Return the tags of an experiment besides its description: that it holds runs, and how its table shows them.

    The view is what MLflow's "Save as new view" writes; an MLflow that knows no views ignores the tag.
    """
    state = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": [*_VIEW_COLUMNS],
        "columnOrder": [*_VIEW_COLUMNS],
        "columnWidths": _VIEW_COLUMNS,
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {"name": "cells with their numbers", "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
    return {
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{VIEW_KEY}": json.dumps(view),
    }


def legal_name(name: str) -> str:
    """Replace by ``_`` what MLflow does not take in the name of a param or a metric."""
    return re.sub(r"[^A-Za-z0-9_. /-]", "_", name)[:MAX_NAME_LENGTH]


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every value of a nested config by its dotted key: text as it is, anything else as JSON writes it."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{name}.")
        else:
            yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
