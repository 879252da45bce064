"""Contracts for one's own parts: what any probe, dataset, rule or judge must hold to, as a test calls it.

>>> from probegrid.testing import check_rule
>>> from probegrid.evaluation.rules import find_rule
>>> check_rule(find_rule("squad"))

Each raises an AssertionError that says what is not as it should be.
"""

from probegrid.testing.datasets import check_dataset
from probegrid.testing.judges import check_judge
from probegrid.testing.probes import check_probe
from probegrid.testing.rules import check_rule

__all__ = ["check_dataset", "check_judge", "check_probe", "check_rule"]
