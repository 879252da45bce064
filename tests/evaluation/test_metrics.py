"""The table of metrics: complete, and every recorded name resolves."""

from __future__ import annotations

import pytest

from probegrid.evaluation.metrics import METRICS, is_of_probe, metric_info, metric_title


def test_every_metric_says_what_it_is() -> None:
    assert all(info.description and info.unit for info in METRICS.values())
    assert metric_info("auroc").higher_is_better is True
    assert metric_info("aurc").higher_is_better is False
    assert metric_info("n").higher_is_better is None


def test_interval_ends_and_devices_resolve() -> None:
    assert metric_info("aurc_ci_low").description.startswith(
        "lower end of the 95% interval of: area under the risk"
    )
    assert metric_info("aurc_ci_high").higher_is_better is False
    assert metric_info("peak_gpu_gb_3").description.endswith("GPU 3")
    assert metric_info("peak_gpu_gb_3").unit == "GB"


@pytest.mark.parametrize("name", ["auroq", "peak_gpu_gb_", "peak_gpu_gb_x", "auroc_ci_middle", ""])
def test_unknown_names_are_refused_with_the_closest(name: str) -> None:
    with pytest.raises(KeyError, match=r"no metric is called .*close: \w+"):
        metric_info(name)


def test_two_quantities_have_two_titles() -> None:
    """Accuracy and F1 are of answers or of a probe's calls; every other title is of one metric alone."""
    assert metric_title("accuracy", of_probe=False) == "answer accuracy"
    assert metric_title("accuracy", of_probe=True) == "probe accuracy"
    assert metric_title("transfer_auroc_cities", of_probe=True) == "AUROC on cities"
    for of_probe in (False, True):
        titles = [metric_title(name, of_probe=of_probe) for name in METRICS]
        assert len({*titles}) == len(titles)
    assert is_of_probe({"accuracy": 0.5, "precision": 0.5})
    assert not is_of_probe({"accuracy": 0.5})
