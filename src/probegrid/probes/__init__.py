"""Probes: whatever reads a model on a dataset and gives every example a score.

A probe is its own configuration: a dataclass whose fields are the keys of its group. A new probe is one new module here
and one YAML in ``conf/probe``; the module's dataclass is found by itself (``compose.register``). Composing a probe
imports no torch: what needs it is in ``probes.fitting``, imported where a probe is fitted.
"""

from probegrid.probes.base import (
    POSITIONS,
    ActivationProbe,
    AnswerProbe,
    Scores,
    Scoring,
    TrainedProbe,
    resolve_layers,
)

__all__ = [
    "POSITIONS",
    "ActivationProbe",
    "AnswerProbe",
    "Scores",
    "Scoring",
    "TrainedProbe",
    "resolve_layers",
]
