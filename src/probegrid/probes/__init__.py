"""Probes: whatever reads a model on a dataset and gives every example a score.

A probe is its own configuration: a dataclass whose fields are the keys of its group. It says as data what it needs
(`Needs`) and is handed that: it knows no store, engine or device. A new probe is one new module here and one YAML in
``conf/probe``, or a module of one's own (entry point ``probegrid.probes``, or ``PROBEGRID_PLUGINS``); composing one
imports no torch.
"""

from probegrid.probes.base import (
    ITSELF,
    POSITIONS,
    ActivationProbe,
    AnswerProbe,
    Ask,
    Fitted,
    HiddenStates,
    Kind,
    Needs,
    Of,
    Probe,
    Scores,
    Scoring,
    Similarity,
    TrainedProbe,
    resolve_layers,
)

__all__ = [
    "ITSELF",
    "POSITIONS",
    "ActivationProbe",
    "AnswerProbe",
    "Ask",
    "Fitted",
    "HiddenStates",
    "Kind",
    "Needs",
    "Of",
    "Probe",
    "Scores",
    "Scoring",
    "Similarity",
    "TrainedProbe",
    "resolve_layers",
]
