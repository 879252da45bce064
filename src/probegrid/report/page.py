"""One HTML page of a report, with everything it needs inside it.

Knows tables, images and the template.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from probegrid.report.tables import Table

_HEADINGS = {
    "table": "Cells",
    "comparisons": "Paired comparisons",
    "costs": "Time and memory compared",
    "cell_costs": "Time and memory of each cell",
    "ranking": "Scores ranked",
    "other_scores": "Other scores",
    "compared_scores": "Scores of one reading compared",
    "rules": "Other rules of correctness",
    "failed": "Failed cells",
    "examples": "Examples as they were read",
}
_FIGURES = {
    "accuracy_by_parameters": "Accuracy of answers against the model's size",
    "probe_accuracy_by_parameters": "Accuracy of the probe's calls against the model's size",
    "auroc_by_parameters": "AUROC against the model's size",
    "accuracy_by_gpu_hours": "Accuracy of answers against GPU time",
    "probe_accuracy_by_gpu_hours": "Accuracy of the probe's calls against GPU time",
    "auroc_by_gpu_hours": "AUROC against GPU time",
    "accuracy_by_device_hours": "Accuracy of answers against device time",
    "probe_accuracy_by_device_hours": "Accuracy of the probe's calls against device time",
    "auroc_by_device_hours": "AUROC against device time",
    "ranking": "Scores ranked: AUROC, and which differ from G-NLL",
    "roc": "ROC: correct against wrong, true against false",
    "risk_coverage": "Risk and coverage",
    "reliability": "Reliability of scores that are probabilities",
    "auroc_by_layer": "AUROC by layer",
    "seconds": "Seconds of loading and reading",
    "speed": "Tokens a second",
    "memory": "Peak memory by device",
}
"""Headings of the figures by name."""


def figure_heading(name: str) -> str:
    """The heading of a figure."""
    return _FIGURES[name]


def page(title: str, lines: Sequence[str], tables: Sequence[Table], figures: Mapping[str, bytes]) -> str:
    """Render the page: tables first, then figures as data URIs; no script, nothing is fetched.

    Args:
        title: of the page.
        lines: below it.
        tables: in order.
        figures: PNG images by name, in order.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("probegrid.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    images = [
        {"name": name, "heading": _FIGURES[name], "data": base64.b64encode(image).decode()}
        for name, image in figures.items()
    ]
    sections = [{"table": table, "heading": _HEADINGS[table.name]} for table in tables]
    return environment.get_template("report.html.j2").render(
        title=title, sections=sections, images=images, lines=lines
    )
