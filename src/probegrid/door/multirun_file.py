"""Hydra's own ``multirun.yaml``: the config of a grid as it was typed, written by Hydra's sweepers, secrets and all."""

from __future__ import annotations

import atexit
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from probegrid.disk import atomic, make_private
from probegrid.tracking.redaction import holds_secret, redact_yaml


def guard(config: DictConfig) -> None:
    """Let nobody else read the file that a sweeper is about to write, and take the secrets out when the process ends.

    Raises:
        StoreError: the folder of sweeps cannot be written.
    """
    if not holds_secret(OmegaConf.to_container(config)):
        return
    file = multirun_file(config)
    make_private(file)
    atexit.register(clean, file)


def multirun_file(config: DictConfig) -> Path:
    """Where Hydra's sweepers write it."""
    return Path(config.hydra.sweep.dir) / "multirun.yaml"


def clean(file: Path) -> None:
    """Take the secrets out of the file, if it is there."""
    if not file.exists():
        return
    shown = redact_yaml(file.read_text())
    with atomic(file) as temporary:
        temporary.write_text(shown)
