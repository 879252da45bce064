"""What ``quantization=auto`` comes to: the way a cell's checkpoint is stored.

Knows where a checkpoint's config is at hand without reading its weights. The cell is called by what it comes to, and
has the key that it would have if that had been typed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from probegrid.models.checkpoint import EMBEDDED
from probegrid.planning.stored import stored_form
from probegrid.schema import CellSpec, ModelConfig, QuantizationMethod

_AUTO = QuantizationMethod.auto.value


def as_stored(spec: CellSpec, config: Mapping[str, Any] | None = None) -> CellSpec:
    """The cell with ``auto`` replaced by what it comes to.

    Args:
        spec: what was composed.
        config: the checkpoint's own config.json; None: looked for where it costs nothing, and where it is not found
            the cell stays as it is.
    """
    quantization, choices = spec.config.quantization, spec.choices
    if quantization.method is not QuantizationMethod.auto:
        return spec
    config = config if config is not None else _config_at_hand(spec.config.model)
    if config is None:
        return spec
    form = stored_form(config)
    method = QuantizationMethod.none if form is None else form.method
    name = method.value if form is None else form.name
    if choices.quantization == _AUTO:
        choices = replace(choices, quantization=name)
    if method is quantization.method and choices is spec.choices:
        return spec
    changed = replace(spec.config, quantization=replace(quantization, method=method))
    return replace(spec, config=changed, choices=choices)


def _config_at_hand(model: ModelConfig) -> Mapping[str, Any] | None:
    """A checkpoint's config.json in its folder or the hub's cache; None where it is neither, or is none."""
    if model.path == EMBEDDED:
        return {}
    file: Path | None = Path(model.path).expanduser() / "config.json"
    assert file is not None
    if not file.is_file():
        file = _cached(model)
    try:
        found = json.loads(file.read_text()) if file else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, Mapping) else None


def _cached(model: ModelConfig) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model.path, "config.json", revision=model.revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
