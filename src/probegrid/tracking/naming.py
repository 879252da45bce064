"""What tells a cell from others in a name: keys that can change its numbers, and what was typed of them.

Knows override strings and the keys of the config.
"""

from __future__ import annotations

from collections.abc import Iterable

from probegrid.schema import Choices

NAMED_GROUPS = ("model", "quantization", "dataset", "probe")
"""The groups whose choices every cell's name begins with."""

_TOLD_BY_CHOICES = (*NAMED_GROUPS, "device_map", "model.path", "dataset.path")
"""What a choice's name says already: a model or data set given by its path is called by it."""

_USUAL_DEVICE_MAP = "auto"
_WITHOUT_EFFECT = (
    "action",
    "debug",
    "decoding.batch_size",
    "experiment",
    "force",
    "hydra",
    "model.resources.",
    "quantization.keep",
    "report",
    "results_dir",
    "status",
    "store_dir",
    "tracking",
)


def has_effect(key: str) -> bool:
    """Whether a key of the config is part of what a cell is, and not only of its speed or its place on disk."""
    return not key.startswith(_WITHOUT_EFFECT)


def key_of_override(override: str) -> str:
    """The key or group that an override sets: ``seed`` of ``++seed=1``."""
    return override.lstrip("+~").partition("=")[0]


def telling(overrides: Iterable[str], choices: Choices) -> tuple[str, ...]:
    """What stands in a cell's name after its choices: the device map, if it is not the usual one, and keys as typed.

    Args:
        overrides: what was typed, ``group=name`` and ``key=value``.
        choices: what it came to, a preset's choices among it.
    """
    keys = [
        override
        for override in overrides
        if (key := key_of_override(override)) not in _TOLD_BY_CHOICES and has_effect(key)
    ]
    usual = choices.device_map == _USUAL_DEVICE_MAP
    return tuple(keys) if usual else (f"device_map={choices.device_map}", *keys)
