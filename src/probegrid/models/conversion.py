"""From the names in a checkpoint's files to the tensors of the model, by transformers' own table of conversions.

A family's files may name its tensors otherwise than its code, hold experts one by one, or queries, keys and values as
one matrix; transformers knows how each is renamed, stacked and cut. Here the same table is applied to one part of a
model at a time, so that no more than a part is ever held.

Knows transformers' ``core_model_loading``; must not know files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Read = Callable[[str], Tensor]

_CONSTANTS = re.compile(
    r"\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.\w+)$|\.(SCB|weight_format)$"
)
"""What bitsandbytes stores beside a matrix."""


@dataclass(frozen=True)
class Source:
    """What one or several tensors of the model are made of."""

    target: str
    """The first of them."""
    transform: Any
    """transformers' ``WeightRenaming`` or ``WeightConverter``, holding no tensors."""
    names: list[tuple[str, str]] = field(default_factory=list)
    """Name in the files and the pattern of the transform that it matched."""

    @property
    def is_renaming(self) -> bool:
        """Whether the tensor is taken as it is."""
        return not hasattr(self.transform, "operations")

    def convert(self, model: PreTrainedModel, read: Read) -> dict[str, Tensor]:
        """Read and convert.

        Args:
            model: whose tensors they become.
            read: a tensor by its name in the files.

        Returns:
            By the names of the model's ``state_dict``.
        """
        transform = deepcopy(self.transform)
        for name, pattern in self.names:
            transform.add_tensor(self.target, name, pattern, lambda name=name: read(name))
        with torch.no_grad():
            made = transform.convert(self.target, model=model, config=model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}


class Conversion:
    """Which names of the files make which tensors of a model.

    Attributes:
        unplaced: names in the files that the model has no place for.
        constants: names of what bitsandbytes stored beside each matrix, by the matrix's name in the files.
    """

    def __init__(
        self, model: PreTrainedModel, names: Iterable[str], alias: Callable[[str], str] = lambda name: name
    ) -> None:
        """Match names; no tensor is read.

        Args:
            model: on the meta device.
            names: of all tensors in the files.
            alias: a name as a checkpoint of this model alone would have it (`text_model.text_name`).
        """
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import (
            WeightConverter,
            WeightRenaming,
            dot_natural_key,
            rename_source_key,
        )

        self._model = model
        mapping = get_model_conversion_mapping(model)
        renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
        converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
        by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
        own = model.state_dict()
        prefix = model.base_model_prefix
        self._sources: dict[str, Source] = {}
        self.unplaced: list[str] = []
        self.constants: dict[str, list[str]] = {}
        for name in sorted(names, key=dot_natural_key):
            if found := _CONSTANTS.search(name):
                matrix = name[: found.start()] + (".weight" if found[2] else "")
                self.constants.setdefault(matrix, []).append(name)
                continue
            called = alias(name)
            target, pattern = rename_source_key(called, renamings, converters, prefix, own)
            if target not in own and called in own:
                target, pattern = rename_source_key(
                    called, [], [], base_model_prefix=prefix, meta_state_dict=own
                )
            if target not in own:
                self.unplaced.append(name)
                continue
            transform = WeightRenaming(name, target) if pattern is None else by_pattern[pattern]
            source = self._sources.setdefault(target, Source(target, transform))
            source.names.append((name, name if pattern is None else pattern))

    @property
    def targets(self) -> set[str]:
        """The first tensor of every source."""
        return set(self._sources)

    def sources(self, tensors: Iterable[str]) -> list[Source]:
        """What makes some tensors of the model; those that nothing makes are left out."""
        return [self._sources[name] for name in tensors if name in self._sources]
