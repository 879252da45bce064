"""Saved probes: ``probe.safetensors`` and ``probe.json``, from which text can be scored again.

Knows a fitted probe and what is needed to use it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from probegrid.errors import StoreError

if TYPE_CHECKING:
    from torch import Tensor

    from probegrid.evaluation.checks import FloatArray
    from probegrid.probes.fitting.fitted import FittedByLayer

TENSORS_FILE, DESCRIPTION_FILE = "probe.safetensors", "probe.json"
_FORMAT = 1


@dataclass(frozen=True)
class SavedProbe:
    """A fitted probe with what is needed to use it.

    Attributes:
        probe: name of its class, for the reader.
        fitted: scores raw activations, a layer at a time.
        layer: the chosen layer.
        threshold: a score at the chosen layer above it is called true.
        positions: where in a conversation the activations were read.
        model: what identifies the model that was read.
        metrics: of the probe on its test split.
        joined: the layers that one probe reads behind one another, rising; empty: it reads the chosen one alone.
    """

    probe: str
    fitted: FittedByLayer
    layer: int
    threshold: float
    positions: str
    model: Mapping[str, Any]
    metrics: Mapping[str, float]
    joined: tuple[int, ...] = ()

    @property
    def reads(self) -> tuple[int, ...]:
        """The layers that a score takes, rising."""
        return self.joined or (self.layer,)

    def scores(self, activations: Tensor, texts: Sequence[str] = ()) -> FloatArray:
        """Score raw activations: float64[n], larger where true is more likely.

        Args:
            activations: float[n, d] of the chosen layer; of a probe on joined layers float[n, l, d].
            texts: of the n examples, for a probe that holds statements against their negations; empty: not known.
        """
        vectors = activations.flatten(1) if self.joined else activations
        return self.fitted.scores_at(self.layer, vectors, texts)

    def probabilities(self, scores: FloatArray) -> FloatArray:
        """Probability of true for scores at the chosen layer: float64[n]."""
        return self.fitted.probabilities_at(self.layer, scores)

    def to_files(self) -> dict[str, bytes]:
        """Return the content of both files by name.

        The tensors of a linear probe are ``weights`` float32[layers, d] (unit norm), ``bias`` and ``scale``
        float64[layers]; any other has those of the chosen layer alone. A metric that is not a number is ``null``.
        """
        from safetensors.torch import save

        from probegrid.probes.fitting.fitted import FittedProbe

        fitted = self.fitted
        is_linear = isinstance(fitted, FittedProbe)
        rows = list(range(len(fitted.layers))) if is_linear else [fitted.layers.index(self.layer)]
        tensors = {**fitted.to_tensors(self.layer), "scale": fitted.scales[rows]}
        tensors = {name: each.contiguous() for name, each in tensors.items()}
        description = {
            "format": _FORMAT,
            "probe": self.probe,
            "kind": fitted.kind,
            "layers": [fitted.layers[row] for row in rows],
            "layer": self.layer,
            "joined": list(self.joined),
            "threshold": self.threshold,
            "penalties": list(fitted.penalties) if isinstance(fitted, FittedProbe) else [None],
            "positions": self.positions,
            "model": dict(self.model),
            "metrics": {name: None if math.isnan(value) else value for name, value in self.metrics.items()},
        }
        return {
            TENSORS_FILE: save(tensors),
            DESCRIPTION_FILE: (json.dumps(description, indent=2, ensure_ascii=False) + "\n").encode(),
        }

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> SavedProbe:
        """Read what `to_files` returned.

        Raises:
            StoreError: a file is missing or damaged, or written by a newer probegrid.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        from probegrid.probes.fitting.fitted import FittedProbe

        try:
            tensors, description = load(files[TENSORS_FILE]), json.loads(files[DESCRIPTION_FILE])
            if description["format"] != _FORMAT:
                raise StoreError(
                    f"the saved probe has format {description['format']}, this probegrid reads {_FORMAT}; upgrade it."
                )
            kind = _kinds()[description.get("kind", FittedProbe.kind)]
            fitted = kind.of_tensors(tuple(description["layers"]), tensors["scale"], tensors)
            if isinstance(fitted, FittedProbe):
                fitted = replace(fitted, penalties=tuple(description["penalties"]))
            metrics = {
                name: math.nan if value is None else value for name, value in description["metrics"].items()
            }
            names = ("probe", "layer", "threshold", "positions", "model")
            told = {name: description[name] for name in names}
            return cls(fitted=fitted, metrics=metrics, joined=tuple(description.get("joined", ())), **told)
        except (KeyError, ValueError, SafetensorError) as error:
            raise StoreError(
                f"the saved probe cannot be read ({TENSORS_FILE}, {DESCRIPTION_FILE}): {error}; run its cell again."
            ) from error


def _kinds() -> dict[str, type[FittedByLayer]]:
    """What can be read again, by what it is called in the file."""
    from probegrid.probes.fitting.contrast import FittedContrast
    from probegrid.probes.fitting.fitted import FittedProbe
    from probegrid.probes.fitting.gaussian import FittedGaussian
    from probegrid.probes.fitting.neighbours import FittedNeighbours
    from probegrid.probes.fitting.network import FittedNetwork

    ours: list[type[FittedByLayer]] = [FittedProbe, FittedContrast, FittedGaussian]
    ours += [FittedNeighbours, FittedNetwork]
    return {one.kind: one for one in ours}
