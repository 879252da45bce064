"""Figures: what their legends say, their bytes, and that nothing global is touched."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from probegrid.evaluation import figures
from probegrid.evaluation.probe_figures import auroc_by_layer_figure
from probegrid.evaluation.summary import evaluate_answers

_GENERATOR = np.random.default_rng(0)
PROBABILITIES = _GENERATOR.random(150)
LABELS = _GENERATOR.random(150) < PROBABILITIES
ESTIMATES = evaluate_answers(LABELS, PROBABILITIES, seed=0, resamples=200, probability=True).estimates


def _all_figures() -> dict[str, Figure]:
    return {
        "roc": figures.roc_figure(LABELS, PROBABILITIES, ESTIMATES["auroc"], title="tiny-facts"),
        "risk_coverage": figures.risk_coverage_figure(
            LABELS, PROBABILITIES, ESTIMATES["aurc"], title="tiny-facts", seed=0, resamples=50
        ),
        "reliability": figures.reliability_figure(
            LABELS, PROBABILITIES, ESTIMATES["ece"], title="tiny-facts"
        ),
        "score_histogram": figures.score_histogram_figure(LABELS, PROBABILITIES, title="tiny-facts"),
    }


def _legend(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_titles_and_legends_name_the_numbers() -> None:
    drawn = _all_figures()
    assert all(figure.axes[0].get_title() == "tiny-facts" for figure in drawn.values())
    area = ESTIMATES["auroc"]
    assert f"AUROC {area.value:.3f} [{area.low:.3f}, {area.high:.3f}]" in _legend(drawn["roc"])
    area = ESTIMATES["aurc"]
    assert f"AURC {area.value:.3f} [{area.low:.3f}, {area.high:.3f}]" in _legend(drawn["risk_coverage"])
    assert f"Random ranking ({1 - LABELS.mean():.3f})" in _legend(drawn["risk_coverage"])
    best = ESTIMATES["aurc"].value - ESTIMATES["eaurc"].value
    assert f"Best ranking ({best:.3f})" in _legend(drawn["risk_coverage"])
    assert f"Correct ({LABELS.sum()})" in _legend(drawn["score_histogram"])


def test_all_that_is_drawn_lies_in_the_figure() -> None:
    title = "Qwen2.5-7B-Instruct-nf4-trivia_qa-semantic_entropy dataset.num_samples=40000 seed=3 prompt.num_few_shot=10"
    many = np.repeat(LABELS, 3000), np.repeat(PROBABILITIES, 3000)
    drawn = [
        figures.roc_figure(LABELS, PROBABILITIES, ESTIMATES["auroc"], title=title),
        figures.score_histogram_figure(*many, title=f"{title} decoding.num_generations=10"),
        auroc_by_layer_figure(
            [0, 4, 40],
            [ESTIMATES["auroc"]] * 3,
            4,
            dict.fromkeys(("Text baseline", "Control", "Another"), ESTIMATES["auroc"]),
            title=title,
        ),
    ]
    for figure in drawn:
        extent = figure.get_tightbbox()
        assert (extent.min >= 0).all()
        assert (extent.max <= figure.get_size_inches()).all()


def test_the_band_lies_around_the_curve() -> None:
    axes = _all_figures()["risk_coverage"].axes[0]
    band = np.asarray(axes.collections[0].get_paths()[0].vertices)
    risk_at_full_coverage = np.asarray(axes.lines[0].get_ydata())[-1]
    band_at_full_coverage = band[np.isclose(band[:, 0], 1.0), 1]
    assert band_at_full_coverage.min() < risk_at_full_coverage < band_at_full_coverage.max()


def test_one_class_is_drawn_and_said() -> None:
    estimates = evaluate_answers([True] * 9, np.arange(9), seed=0, resamples=20).estimates
    roc = figures.roc_figure([True] * 9, np.arange(9), estimates["auroc"], title="all correct")
    risk = figures.risk_coverage_figure(
        [True] * 9, np.arange(9), estimates["aurc"], title="all correct", seed=0
    )
    assert "AUROC undefined: one class only" in _legend(roc)
    assert all(figures.png(figure).startswith(b"\x89PNG") for figure in (roc, risk))


def test_the_same_figures_give_the_same_bytes() -> None:
    drawn, again = (figures.image_files(_all_figures()) for _ in range(2))
    assert drawn == again
    assert {name.rpartition(".")[2] for name in drawn} == {"png", "svg"}
    assert b"Software" not in drawn["roc.png"]
    assert b">False positive rate</text>" in drawn["roc.svg"]  # words stay words


def test_a_pdf_is_the_same_again_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    drawn, again = (figures.pdf(_all_figures()["roc"]) for _ in range(2))
    assert drawn == again
    assert drawn.startswith(b"%PDF")
    assert not caplog.records


def test_drawing_touches_no_global_state() -> None:
    code = (
        "import sys; from probegrid.evaluation import figures\n"
        "figures.score_histogram_figure([True, False], [1, 0], title='t')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "module", ["correctness", "ranking", "calibration", "intervals", "summary", "figures"]
)
def test_importing_is_cheap(module: str) -> None:
    code = (
        f"import sys, probegrid.evaluation.{module}\n"
        "heavy = {'scipy', 'sklearn', 'matplotlib', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
