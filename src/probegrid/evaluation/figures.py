"""Figures of one cell (ROC, risk against coverage, reliability, scores by label), and the style of all figures.

Drawn on `Figure` objects, without pyplot: no global state, no display. Colors are those of Okabe & Ito
(2008), which color-blind readers tell apart.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.calibration import Binning, Calibration
from probegrid.evaluation.checks import FloatArray, as_labels, as_scores
from probegrid.evaluation.intervals import Estimate, bootstrap
from probegrid.evaluation.ranking import Ranking, risk_coverage_curve, roc_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#666666"
PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Colors of overlaid series, as many as a panel can hold and be read."""
_INCHES, _DPI = (6.4, 4.8), 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.85, 0.2, 0.15, 0.6
"""Inches around the axes, for labels of five digits; above them a title comes on top."""
_LINE_INCHES, _LETTERS_A_LINE = 0.23, 50
_BAND_COVERAGES = np.linspace(0.02, 1, 50)
FIRST_COVERAGE_IN_VIEW = 0.05  # below it a handful of answers would set the scale


def roc_figure(labels: ArrayLike, scores: ArrayLike, auroc: Estimate, *, title: str) -> Figure:
    """Draw the true against the false positive rate at every threshold, with the AUROC and its interval.

    Args:
        labels: `bool[n]`, true for the positive class.
        scores: `float[n]`, finite; larger when the positive label is more likely.
        auroc: the area with its interval, of the same labels and scores.
        title: of the figure.

    Raises:
        ValueError: shapes differ, a label is not true or false, or a score is not finite.
    """
    figure, axes = new_figure(title, "False positive rate", "True positive rate")
    false_positive_rate, true_positive_rate = roc_curve(labels, scores)
    axes.plot([0, 1], [0, 1], "--", color=GRAY, label="Chance (0.500)")
    axes.plot(
        false_positive_rate,
        true_positive_rate,
        color=BLUE,
        linewidth=2,
        label=f"AUROC {interval_text(auroc)}",
    )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_aspect("equal")
    axes.legend(loc="lower right")
    return figure


def risk_coverage_figure(
    labels: ArrayLike,
    scores: ArrayLike,
    aurc: Estimate,
    groups: Sequence[str] | None = None,
    *,
    title: str,
    seed: int,
    resamples: int = 2000,
) -> Figure:
    """Draw the error rate against the fraction of answers kept, beside the best and a random ranking.

    Args:
        labels: `bool[n]`, true where the answer is correct; `n >= 1`.
        scores: `float[n]`, finite; larger when correct is more likely.
        aurc: the area with its interval, of the same labels and scores.
        groups: group of each example; whole groups are resampled for the band.
        title: of the figure.
        seed: of the resampling alone.
        resamples: number of bootstrap resamples behind the pointwise 95% band.

    Raises:
        ValueError: as `evaluate_answers`.
    """
    figure, axes = new_figure(title, "Coverage (share of answers kept)", "Risk (error rate among those kept)")
    coverage, risk = risk_coverage_curve(labels, scores)
    base = float(risk[-1])
    low, high = _risk_band(labels, scores, groups, seed=seed, resamples=resamples)
    axes.fill_between(
        _BAND_COVERAGES, low, high, color=BLUE, alpha=0.18, linewidth=0, label="95% band, pointwise"
    )
    axes.plot(coverage, risk, color=BLUE, linewidth=2, label=f"AURC {interval_text(aurc)}")
    axes.axhline(base, linestyle="--", color=GRAY, label=f"Random ranking ({base:.3f})")
    optimal = np.maximum(0, 1 - (1 - base) / coverage)
    axes.plot(coverage, optimal, ":", color=GREEN, linewidth=2, label=f"Best ranking ({optimal.mean():.3f})")
    in_view = np.concatenate([risk[coverage >= FIRST_COVERAGE_IN_VIEW], [base, 0.02]])
    axes.set(xlim=(0, 1.01), ylim=(-0.015 * in_view.max(), 1.35 * in_view.max()))
    axes.legend(loc="upper left")
    return figure


def reliability_figure(
    labels: ArrayLike,
    probabilities: ArrayLike,
    ece: Estimate,
    *,
    title: str,
    bins: int = 15,
    binning: Binning = "width",
) -> Figure:
    """Draw the share of positives against the mean probability of each bin; larger markers hold more.

    Args:
        labels: `bool[n]`, true for the positive class; `n >= 1`.
        probabilities: `float[n]` in [0, 1], of the positive class.
        ece: the expected calibration error with its interval, of the same labels, probabilities and bins.
        title: of the figure.
        bins: number of bins.
        binning: as `Calibration`.

    Raises:
        ValueError: as `Calibration`.
    """
    figure, axes = new_figure(title, "Mean probability in the bin", "Share of positives in the bin")
    points = Calibration(labels, probabilities, bins=bins, binning=binning).reliability()
    axes.plot([0, 1], [0, 1], "--", color=GRAY, label="Calibrated")
    axes.plot(
        points.confidence, points.accuracy, color=BLUE, linewidth=1.5, label=f"ECE {interval_text(ece)}"
    )
    axes.scatter(
        points.confidence, points.accuracy, s=20 + 600 * points.weight, color=BLUE, alpha=0.6, linewidth=0
    )
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes.set_aspect("equal")
    axes.legend(loc="upper left")
    return figure


def score_histogram_figure(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    title: str,
    bins: int = 30,
    classes: tuple[str, str] = ("Incorrect", "Correct"),
    score_name: str = "Score (larger: more likely correct)",
) -> Figure:
    """Draw how many positives and negatives have which score, on the same bins.

    Args:
        labels: `bool[n]`, true for the positive class; `n >= 1`.
        scores: `float[n]`, finite.
        title: of the figure.
        bins: number of bins of equal width over the range of the scores.
        classes: names of the negatives and the positives.
        score_name: of the horizontal axis.

    Raises:
        ValueError: shapes differ, a label is not true or false, or a score is not finite.
    """
    figure, axes = new_figure(title, score_name, "Examples")
    truth = as_labels(labels)
    values = as_scores(scores, len(truth))
    edges = np.histogram_bin_edges(values, bins=bins)
    for name, chosen, color in ((classes[0], ~truth, ORANGE), (classes[1], truth, BLUE)):
        label = f"{name} ({np.count_nonzero(chosen)})"
        counts, _ = np.histogram(values[chosen], bins=edges)
        # one outline in place of a rectangle a bin, which take as long to draw as all else
        axes.stairs(counts, edges, fill=True, color=color, alpha=0.55, linewidth=0, label=label)
    axes.legend(loc="best")
    return figure


def image_files(figures: Mapping[str, Figure]) -> dict[str, bytes]:
    """Each figure for a screen and for papers by the names of its files, ``roc.png`` and ``roc.svg``."""
    files: dict[str, bytes] = {}
    for name, figure in figures.items():
        files[f"{name}.png"] = png(figure)
        files[f"{name}.svg"] = svg(figure)
    return files


def png(figure: Figure) -> bytes:
    """Render at 150 dpi; the same figure gives the same bytes, with no date and no program version in them."""
    return _saved(figure, "png", {"Software": None}, dpi=_DPI)


def svg(figure: Figure) -> bytes:
    """Draw as SVG, text as text; the same figure gives the same bytes."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "probegrid"}):
        return _saved(figure, "svg", {"Date": None, "Creator": None})


def pdf(figure: Figure) -> bytes:
    """Draw as PDF with TrueType fonts in it, which publishers demand; the same figure gives the same bytes."""
    from matplotlib import rc_context

    fonts = logging.getLogger("fontTools")
    level = fonts.level
    # it names each table of a font, which an application's own log would show
    fonts.setLevel(logging.WARNING)
    try:
        with rc_context({"pdf.fonttype": 42}):
            return _saved(figure, "pdf", {"CreationDate": None, "Creator": None, "Producer": None})
    finally:
        fonts.setLevel(level)


def _saved(figure: Figure, kind: str, metadata: dict[str, None], *, dpi: float | None = None) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=metadata, dpi=dpi or figure.dpi)
    return buffer.getvalue()


def new_figure(title: str, x_label: str, y_label: str, below: float = 0) -> tuple[Figure, Axes]:
    """Make an empty figure in the style of all the others, with room for its title.

    Axes are placed by hand: matplotlib's own layout draws everything once more to find their place.

    Args:
        title: of the figure; wrapped.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        below: inches to leave below the labels, for a legend.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES)
    width, height = _INCHES
    above = _TOP + _LINE_INCHES * math.ceil(len(title) / _LETTERS_A_LINE)
    across, up = width - _LEFT - _RIGHT, height - above - _BOTTOM - below
    axes = figure.add_axes((_LEFT / width, (_BOTTOM + below) / height, across / width, up / height))
    dress(axes, title, x_label, y_label)
    return figure, axes


def dress(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Give axes the style of all figures: titles, a grid behind what is drawn, no frame."""
    axes.set_title(title, wrap=True, y=1)  # elsewhere only after a search that measures every label
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _risk_band(
    labels: ArrayLike, scores: ArrayLike, groups: Sequence[str] | None, *, seed: int, resamples: int
) -> tuple[FloatArray, FloatArray]:
    """Ends of the pointwise 95% interval of the risk at `_BAND_COVERAGES`, `float64[k]` each."""
    ranking = Ranking(labels, scores)

    def risks(weights: FloatArray) -> dict[str, FloatArray]:
        risk = 1 - ranking.counts(weights).accuracy_at(_BAND_COVERAGES)
        return {f"{coverage:.2f}": risk[:, column] for column, coverage in enumerate(_BAND_COVERAGES)}

    band = bootstrap(risks, np.size(labels), groups, seed=seed, resamples=resamples).values()
    return np.array([point.low for point in band]), np.array([point.high for point in band])


def interval_text(estimate: Estimate) -> str:
    """Value and interval for a legend, in words where there is none."""
    if np.isnan(estimate.value):
        return "undefined: one class only"
    if np.isnan(estimate.low):
        return f"{estimate.value:.3f} (no interval)"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
