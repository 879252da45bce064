"""What cells share, looked up once: checkpoints, tokenizers, datasets, second models.

Knows where each comes from. A mistake is remembered like a find, so that every cell that shares it says the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from probegrid import data
from probegrid.data.source import PathNotGiven, is_local
from probegrid.errors import NotAtHand, UserError
from probegrid.hardware.machine import visible_gpus
from probegrid.models.checkpoint import Checkpoint, find_checkpoint
from probegrid.models.classifier import find_classifier
from probegrid.models.kinds import only_decoders
from probegrid.schema import DatasetConfig, ModelConfig, Resources

if TYPE_CHECKING:
    from probegrid.data.example import QuestionSet, StatementSet
    from probegrid.hardware.cards import Gpu
    from probegrid.models.load import Tokenizer
    from probegrid.readings.prompts import Prompt

T = TypeVar("T")
_MOST_HELD = 16
"""Datasets, and sets of prompts, that are held at once: a sweep over seeds has a new one a cell."""


class Lookup:
    """Finds each thing once, for as many cells as need it."""

    def __init__(self, *, fetch: bool = True, say: Callable[[str], None] | None = None) -> None:
        """Begin with nothing found.

        Args:
            fetch: whether the hub may be asked; without it what is on the hub is not at hand.
            say: told where a look-up takes long.
        """
        self._fetch, self._say = fetch, say
        self._kept: dict[str, object] = {}
        self._recent: OrderedDict[str, object] = OrderedDict()

    def checkpoint(self, model: ModelConfig) -> Checkpoint:
        """The checkpoint of a model.

        Raises:
            CheckpointError: there is none, or it is no checkpoint of a causal language model.
            NotAtHand: it is on the hub, and nothing may be fetched.
        """
        return self._once(
            f"checkpoint {_identity(model)}",
            lambda: only_decoders(find_checkpoint(model, fetch=self._fetch, say=self._say)),
        )

    def judge(self, model: ModelConfig) -> Checkpoint:
        """The checkpoint of a second model that judges answers.

        Raises:
            CheckpointError: there is none, or it is no checkpoint of a causal language model.
            NotAtHand: it is on the hub, and nothing may be fetched.
        """
        return self._once(
            f"judge {_identity(model)}",
            lambda: only_decoders(
                find_checkpoint(model, fetch=self._fetch, say=self._say, key="dataset.judge"), "dataset.judge"
            ),
        )

    def tokenizer(self, model: ModelConfig, checkpoint: Checkpoint) -> Tokenizer:
        """The tokenizer of a checkpoint.

        Raises:
            CheckpointError: there is none, or it cannot be read.
        """
        from probegrid.models.load import load_tokenizer

        key = f"tokenizer {checkpoint.name} {checkpoint.fingerprint} {model.trust_remote_code}"
        return self._once(key, lambda: load_tokenizer(checkpoint, model))

    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs of this machine."""
        return self._once("gpus", visible_gpus)

    def classifier(self, path: str) -> Checkpoint:
        """The checkpoint of an entailment model.

        Raises:
            CheckpointError: it is missing, or no entailment model.
        """
        return self._once(f"classifier {path}", lambda: find_classifier(path))

    def examples(self, dataset: DatasetConfig) -> QuestionSet | StatementSet:
        """The examples of a dataset.

        Raises:
            DataError: it is missing, empty, or not in a shape that can be read.
            NotAtHand: it is on the hub, and nothing may be fetched.
        """
        key = f"examples {type(dataset).__module__} {dataset}"
        return self._once(key, lambda: self._load(dataset), is_large=True)

    def prompts(self, description: str, build: Callable[[], tuple[Prompt, ...]]) -> tuple[Prompt, ...]:
        """Prompts by what they are made of, built the first time."""
        return self._once(f"prompts {description}", build, is_large=True)

    def _load(self, dataset: DatasetConfig) -> QuestionSet | StatementSet:
        if not self._fetch and dataset.path is not None and not is_local(dataset.path):
            raise NotAtHand(f"dataset.path={dataset.path} is on the hub.")
        try:
            return data.load(dataset)
        except PathNotGiven as error:
            if self._fetch:
                raise
            raise NotAtHand("dataset.path is not given.") from error

    def _once(self, key: str, find: Callable[[], T], *, is_large: bool = False) -> T:
        kept = self._recent if is_large else self._kept
        if key not in kept:
            try:
                kept[key] = find()
            except UserError as error:
                kept[key] = error
            if len(self._recent) > _MOST_HELD:
                self._recent.popitem(last=False)
        found = kept[key]
        if isinstance(found, UserError):
            raise found
        return found  # type: ignore[return-value]  # the key names what is looked for


def _identity(model: ModelConfig) -> ModelConfig:
    """A model's config without what does not say which checkpoint it is."""
    return replace(model, architecture=None, resources=Resources(), chat_template=None, template_kwargs={})
