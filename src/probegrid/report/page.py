"""One HTML page of a report, with everything it needs inside it.

Knows tables, charts and the template.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from probegrid.evaluation.figures import PALETTE
from probegrid.report.charts import Chart
from probegrid.report.drawing import row_shares
from probegrid.report.embedding import asset, data_block, policy, render, verbatim
from probegrid.report.tables import Table

FIRST_ROWS = 300
"""Rows of a table that stand in the page's text; a browser takes long over many thousands."""

_HEADINGS = {
    "table": "Cells",
    "comparisons": "Paired comparisons",
    "costs": "Time and memory compared",
    "cell_costs": "Time and memory of each cell",
    "ranking": "Scores ranked",
    "other_scores": "Other scores",
    "compared_scores": "Scores of one reading compared",
    "rules": "Other rules of correctness",
    "device_maps": "Device maps compared: time, memory, speed-up",
    "failed": "Failed cells",
    "examples": "Examples as they were read",
}
_FIRST = ("table", "comparisons", "costs", "device_maps", "failed")
"""Tables that stand before the figures; the others, which are longer, after them."""
_FIGURES = {
    "ranking": "Scores ranked, those of the same answers in one panel",
    "accuracy_by_parameters": "Accuracy of answers against the model's size",
    "probe_accuracy_by_parameters": "Accuracy of the probe's calls against the model's size",
    "auroc_by_parameters": "AUROC against the model's size",
    "accuracy_by_gpu_hours": "Accuracy of answers against GPU time",
    "probe_accuracy_by_gpu_hours": "Accuracy of the probe's calls against GPU time",
    "auroc_by_gpu_hours": "AUROC against GPU time",
    "accuracy_by_device_hours": "Accuracy of answers against device time",
    "probe_accuracy_by_device_hours": "Accuracy of the probe's calls against device time",
    "auroc_by_device_hours": "AUROC against device time",
    "roc": "ROC: correct against wrong, true against false",
    "risk_coverage": "Risk and coverage",
    "reliability": "Reliability of scores that are probabilities",
    "auroc_by_layer": "AUROC by layer",
    "spread": "AUROC with its own interval, and over folds, repeats and seeds",
    "seconds": "Seconds of loading and reading",
    "speed": "Tokens a second",
    "memory": "Peak memory by device",
}
"""Headings of the figures by name."""


def figure_heading(name: str) -> str:
    """The heading of a figure."""
    return _FIGURES[name]


def page(
    title: str,
    lines: Sequence[str],
    tables: Sequence[Table],
    charts: Sequence[Chart],
    images: Mapping[str, bytes],
    behind: Mapping[str, Mapping[str, Any]],
) -> str:
    """Render the page, with its data, style, script and figures inside it; nothing is fetched.

    Tables are whole in the page's own text up to `FIRST_ROWS`; further rows are data that its script shows. A figure
    is an image, on which paper and a reader without scripts rely, and data that answers to the pointer.

    Args:
        title: of the page.
        lines: below it.
        tables: in order.
        charts: the figures, in order.
        images: SVG by name of the chart.
        behind: ``examples`` by key of a cell and ``pairs`` by two keys, as `behind` has them.
    """
    scripts = [asset("assets/report.js")]
    if charts:
        scripts += [asset("vendor/plotly-basic.min.js"), asset("assets/figures.js")]
    data = {
        "further": {
            table.name: [list(row) for row in table.rows[FIRST_ROWS:]]
            for table in tables
            if len(table.rows) > FIRST_ROWS
        },
        "cells": {table.name: [list(keys) for keys in table.cells] for table in tables if table.cells},
        "examples": behind["examples"],
        "pairs": behind["pairs"],
    }
    drawn = {"figures": {chart.name: chart.plain() for chart in charts}, "colors": list(PALETTE)}
    return render(
        "report.html.j2",
        {
            "title": title,
            "lines": lines,
            "sections": [
                {
                    "table": table,
                    "heading": _HEADINGS[table.name],
                    "rows": table.rows[:FIRST_ROWS],
                    "is_first": table.name in _FIRST,
                }
                for table in tables
            ],
            "images": [
                {
                    "name": chart.name,
                    "heading": _FIGURES[chart.name],
                    "note": chart.note,
                    "data": base64.b64encode(images[chart.name]).decode(),
                    "rows": " ".join(f"{share:.6f}" for share in row_shares(chart)),
                }
                for chart in charts
            ],
            "policy": policy(scripts),
            "style": verbatim(asset("assets/base.css") + asset("assets/report.css")),
            "data": verbatim(data_block(data)),
            "charts": verbatim(data_block(drawn)),
            "scripts": [verbatim(script) for script in scripts],
        },
    )
