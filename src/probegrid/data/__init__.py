"""Datasets: ``load`` turns a dataset's config into questions or statements.

Knows the modules' convention and nothing else: the module that defines a config class also defines ``load``
for it, so that a new dataset is one new module and touches no other file.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from probegrid.data.example import QuestionSet, StatementSet
from probegrid.errors import ConfigError
from probegrid.schema import DatasetConfig

__all__ = ["load"]


def load(config: DatasetConfig) -> QuestionSet | StatementSet:
    """Read the dataset that ``config`` describes, drawn and in a fixed order.

    Raises:
        ConfigError: the class of ``config`` is not a dataset's own.
        DataError: the dataset is missing, empty, or not in a shape that can be read.
    """
    module = sys.modules[type(config).__module__]
    if not hasattr(module, "load"):
        raise ConfigError(
            f"{type(config).__name__} names no dataset; let the YAML's defaults start from a dataset's "
            "schema (`- /schema/dataset/jsonl@_here_`, as in conf/dataset/jsonl.yaml)."
        )
    loaded: QuestionSet | StatementSet = module.load(config)
    if not isinstance(loaded, QuestionSet):
        return loaded
    return replace(
        loaded,
        rule=getattr(config, "rule", None) or loaded.rule,
        threshold=getattr(config, "rule_threshold", None),
        language=getattr(config, "language", None),
    )
