"""Sequence classifiers of two texts: natural language inference, or how alike they are.

Knows transformers' sequence classification and devices.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probegrid.errors import CheckpointError
from probegrid.models.checkpoint import Checkpoint, find_checkpoint
from probegrid.models.relative_positions import only_near
from probegrid.schema import ModelConfig

if TYPE_CHECKING:
    import torch

Pair = tuple[str, str]
Relation = tuple[float, float, float]
"""Probabilities that the first text contradicts the second, is neutral to it, entails it."""
WORKING_BYTES = 2 * 10**9
"""Memory that classifying a batch takes beside the weights, at most about this."""


def find_classifier(path: str) -> Checkpoint:
    """Resolve the hub id or folder of an entailment model.

    Raises:
        CheckpointError: it is missing, or none of its labels is called entailment.
    """
    checkpoint = find_checkpoint(ModelConfig(path=path, use_safetensors=False), key="probe.entailment")
    entailment_label(checkpoint)
    return checkpoint


def find_cross_encoder(path: str) -> Checkpoint:
    """Resolve the hub id or folder of a model that says how alike two texts are.

    Raises:
        CheckpointError: it is missing, or it has several classes.
    """
    checkpoint = find_checkpoint(ModelConfig(path=path, use_safetensors=False), key="probe.similarity")
    labels = _labels(checkpoint)
    if len(labels) != 1:
        raise CheckpointError(
            f"probe.similarity={checkpoint.name} has {len(labels)} classes, and one number is wanted; give rouge_l, "
            "entailment, or a cross-encoder such as cross-encoder/stsb-roberta-large."
        )
    return checkpoint


def _labels(checkpoint: Checkpoint) -> dict[str, int]:
    """The number of each class by its name."""
    labels: dict[str, Any] = checkpoint.config.get("label2id") or {
        name: number for number, name in checkpoint.config.get("id2label", {}).items()
    }
    return {name: int(number) for name, number in labels.items()}


def _lower(labels: dict[str, int]) -> dict[str, int]:
    return {name.lower(): number for name, number in labels.items()}


def entailment_label(checkpoint: Checkpoint) -> int:
    """The class whose name is entailment, in any case (2 for ``microsoft/deberta-v2-xlarge-mnli``).

    Raises:
        CheckpointError: there is none.
    """
    labels = _labels(checkpoint)
    if "entailment" in _lower(labels):
        return _lower(labels)["entailment"]
    raise CheckpointError(
        f"probe.entailment={checkpoint.name} has no label 'entailment' (labels: {', '.join(labels) or 'none'}); give a "
        "classifier for natural language inference such as microsoft/deberta-v2-xlarge-mnli."
    )


@dataclass
class Classifier:
    """A classifier in memory, in float32, on the first GPU if there is one."""

    model: Any
    tokenizer: Any
    labels: dict[str, int]
    """The number of each class by its name in lower case."""
    longest: int | None
    """Most tokens of a pair; None is no limit."""

    @classmethod
    def load(cls, checkpoint: Checkpoint, make_room: Callable[[torch.device, int], None]) -> Classifier:
        """Load weights and tokenizer.

        Args:
            checkpoint: as `find_classifier` gives it.
            make_room: frees so many bytes on a device, if they are not free; called before the weights are read.

        Raises:
            CheckpointError: the weights or the tokenizer cannot be read, or weights are missing.
        """
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        from probegrid.models.load import loading_errors
        from probegrid.models.request import refuse_missing

        name, commit = checkpoint.name, checkpoint.commit
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        with loading_errors(checkpoint):
            tokenizer: Any = AutoTokenizer.from_pretrained(name, revision=commit)
            config: Any = AutoConfig.from_pretrained(name, revision=commit)
            with torch.device("meta"):
                shape = AutoModelForSequenceClassification.from_config(config)
            make_room(device, 4 * sum(parameter.numel() for parameter in shape.parameters()) + WORKING_BYTES)
            loaded: Any = AutoModelForSequenceClassification.from_pretrained(
                name, revision=commit, dtype=torch.float32, output_loading_info=True
            )
        model, info = loaded
        refuse_missing(checkpoint, info)
        limits = [tokenizer.model_max_length, checkpoint.context]
        known = [limit for limit in limits if limit is not None and limit < 10**9]  # none: a huge number
        return cls(model.eval().to(device), tokenizer, _lower(_labels(checkpoint)), min(known, default=None))

    def lengths(self, pairs: Sequence[Pair]) -> list[int]:
        """Tokens of each pair, before it is cut to ``longest``."""
        ids = self.tokenizer(*self._columns(pairs), verbose=False)["input_ids"]
        return [len(row) for row in ids]

    def relations(self, pairs: Sequence[Pair]) -> list[Relation]:
        """How the first text of each pair of a batch relates to the second; all other classes count as neutral."""
        shares = self._logits(pairs).double().softmax(-1)
        entails = shares[:, self.labels["entailment"]]
        against = self.labels.get("contradiction")
        contradicts = entails.new_zeros(len(entails)) if against is None else shares[:, against]
        neutral = (1 - entails - contradicts).clamp(min=0)
        found = zip(contradicts.tolist(), neutral.tolist(), entails.tolist(), strict=True)
        return list(found)

    def similarities(self, pairs: Sequence[Pair]) -> list[float]:
        """How alike the texts of each pair of a batch are, in [0, 1]: the logistic function of the only output."""
        found: list[float] = self._logits(pairs).double().sigmoid()[:, 0].tolist()
        return found

    def _logits(self, pairs: Sequence[Pair]) -> torch.Tensor:
        """[n, classes] float32."""
        import torch

        batch = self.tokenizer(
            *self._columns(pairs),
            padding=True,
            truncation=self.longest is not None,
            max_length=self.longest,
            return_tensors="pt",
        ).to(self.model.device)
        with torch.inference_mode(), only_near(self.model, batch["input_ids"].shape[1]):
            logits: torch.Tensor = self.model(**batch).logits
        return logits

    def release(self) -> None:
        """Free its memory; it is of no use afterwards."""
        import torch

        self.model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @staticmethod
    def _columns(pairs: Sequence[Pair]) -> tuple[list[str], list[str]]:
        return [first for first, _ in pairs], [second for _, second in pairs]
