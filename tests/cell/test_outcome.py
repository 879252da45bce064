"""What a cell hands to its end: no number without an interval but with its reason."""

from __future__ import annotations

from math import nan

from probegrid.cell.outcome import Outcome, with_reasons
from probegrid.evaluation.summary import NO_INTERVAL


def test_what_has_no_interval_says_why() -> None:
    metrics = {"f1": 0.5, "f1_ci_low": nan, "auroc": 0.7, "auroc_ci_low": nan, "prr": nan, "prr_ci_low": nan}
    metrics |= {"accuracy": 0.5, "accuracy_ci_low": 0.4, "n": 4}
    found = with_reasons(Outcome(metrics, {"auroc": "noted before", "prr": "all are right"}, {}, {}))
    assert found.notes == {"f1": NO_INTERVAL, "auroc": "noted before", "prr": "all are right"}
    assert found.metrics is metrics
