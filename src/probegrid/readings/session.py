"""A model that questions are put to: how they are written for it, and where what it says is kept.

Knows prompts, readings and what identifies them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from probegrid.data.example import QuestionSet, StatementSet
from probegrid.errors import ConfigError
from probegrid.models.load import load_tokenizer
from probegrid.models.load_truncated import TruncatedModel
from probegrid.readings.activations import ActivationReading, read_activations
from probegrid.readings.identity import describe_model
from probegrid.readings.prompts import ChatTemplate
from probegrid.readings.spans import (
    Passage,
    Position,
    statement_passages,
)

if TYPE_CHECKING:
    from probegrid.models.checkpoint import Checkpoint
    from probegrid.models.load import LoadedModel
    from probegrid.progress import Progress
    from probegrid.schema import Config, ModelConfig


import resource
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from probegrid.hardware.devices import BYTES_PER_GB
from probegrid.hardware.memory import free_bytes
from probegrid.models.checkpoint import Checkpoint
from probegrid.models.classifier import Classifier, find_classifier
from probegrid.models.load import LoadedModel, ModelRequest
from probegrid.models.pool import ModelPool
from probegrid.models.preflight import disk_needs, preflight, this_machine
from probegrid.planning.plan import Limits, Plan
from probegrid.readings.answers import AnswerReading, read_answers
from probegrid.readings.choices import ChoiceReading, read_choices
from probegrid.readings.entailment import Entailments
from probegrid.readings.identity import describe_answers
from probegrid.readings.prompts import build_prompts, check_lengths
from probegrid.schema import Config, QuantizationMethod

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from probegrid.models.checkpoint import Checkpoint
    from probegrid.progress import Progress
    from probegrid.schema import Config


def keep_model(device: torch.device, needed: int) -> None:
    """Make no room."""


@dataclass(frozen=True)
class Respondent:
    """The model of a cell, opened only for what the store does not hold."""

    config: Config
    checkpoint: Checkpoint
    open_model: Callable[[], LoadedModel]
    progress: Progress
    make_room: Callable[[torch.device, int], None] = keep_model
    """Lets the model go if so many bytes are not free on a device beside it."""

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The checkpoint's tokenizer."""
        return load_tokenizer(self.checkpoint, self.config.model)

    def answer(self, data: QuestionSet) -> AnswerReading:
        """Read (or fetch from the store) the answers to some questions, by the cell's prompt and decoding.

        Raises:
            ConfigError: too few examples to show, or prompts that pass the context.
            StoreError: a damaged entry or a full disk.
            RunError: one question alone does not fit in memory.
        """
        config = self.config
        prompts = build_prompts(data, config.prompt, self.tokenizer, config.model.chat_template)
        check_lengths(prompts, config.decoding.max_new_tokens, self.checkpoint.context)
        return read_answers(
            prompts,
            config.decoding,
            config.prompt.stop,
            description=describe_answers(config, self.checkpoint, data),
            store_dir=config.store_dir,
            tokenizer=self.tokenizer,
            open_model=self.open_model,
            progress=self.progress,
        )

    def tokenize(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Token ids of prompts, in the chat template where the cell has one."""
        template = ChatTemplate(self.tokenizer, self.config.model.chat_template)
        return [tuple(ids) for ids in template.tokenize([template(text) for text in texts])]

    def choice_ids(self, prompt: str, choices: Sequence[str]) -> list[int]:
        """The token that each choice is, right after a prompt.

        In a chat template the choice begins the model's own turn, so that the space it begins with is left out.

        Raises:
            ConfigError: the tokenizer makes a choice of several tokens, or joins it with the prompt.
        """
        template = ChatTemplate(self.tokenizer, self.config.model.chat_template)
        text = template(prompt)
        written = [choice.lstrip() if template.source else choice for choice in choices]
        before, *after = template.tokenize([text, *(text + choice for choice in written)])
        for choice, ids in zip(written, after, strict=True):
            if ids[:-1] != before:
                raise ConfigError(
                    f"the tokenizer of {self.checkpoint.name} does not write {choice!r} as one token after the prompt, "
                    "so that its probability cannot be read off; use another probe (gnll, semantic_entropy) for it."
                )
        return [ids[-1] for ids in after]

    def choose(self, prompts: Sequence[tuple[int, ...]], choices: Sequence[int]) -> ChoiceReading:
        """Read (or fetch from the store) how likely each of some tokens is to come next after each prompt.

        Raises:
            StoreError: a damaged entry or a full disk.
            RunError: one prompt alone does not fit in memory.
        """
        config = self.config
        return read_choices(
            prompts,
            choices,
            batch_size=config.decoding.batch_size,
            description=describe_model(self.checkpoint, config.model, config.quantization.method),
            store_dir=config.store_dir,
            tokenizer=self.tokenizer,
            open_model=self.open_model,
            progress=self.progress,
        )

    def entailments(self, classifier: str, asked_for: str) -> Entailments:
        """Which answers entail which, by a second model; what is asked is kept in the store.

        The model of the cell stays in memory if the classifier fits beside it, and is let go if not.

        Args:
            classifier: hub id or folder.
            asked_for: key of the answers' reading.

        Raises:
            CheckpointError: the classifier is missing, or has no label for entailment.
            StoreError: a damaged entry.
        """
        checkpoint = find_classifier(classifier)
        return Entailments(
            checkpoint,
            lambda: Classifier.load(checkpoint, self.make_room),
            asked_for=asked_for,
            store_dir=self.config.store_dir,
            progress=self.progress,
        )


class Meter:
    """Opens the model of a cell when it is needed and keeps account of what it took."""

    def __init__(self, pool: ModelPool, request: ModelRequest, limits: Limits | None) -> None:
        self._pool = pool
        self._request = request
        self._limits = limits
        self._load_s = 0.0
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)

    def open_model(self, deepest_layer: int | None = None) -> LoadedModel:
        """The model, loaded now unless the pool holds it.

        Args:
            deepest_layer: blocks to load, without the head, for activations; None: the whole model.
        """
        request = self._request if deepest_layer is None else self._request.without_head(deepest_layer)
        before = self._pool.loaded
        loaded = self._pool.get(request, deepest_layer)
        if loaded is not before:
            self._load_s += loaded.load_s
        return replace(loaded, limits=self._limits)

    def make_room(self, device: torch.device, needed: int) -> None:
        """Let the model go if there are not so many bytes free beside it; it is loaded again when it is needed."""
        if free_bytes(device) < needed:
            self._pool.release()

    def metrics(self) -> dict[str, float]:
        """``load_s``, ``peak_ram_gb`` of this process, ``peak_gpu_gb_<i>``; in 10^9 bytes.

        ``load_s`` is 0 where no model was needed, or an earlier cell of the pack had loaded it.
        """
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        gpus = {
            f"peak_gpu_gb_{device}": torch.cuda.max_memory_allocated(device) / BYTES_PER_GB
            for device in range(torch.cuda.device_count())
        }
        return {
            "load_s": self._load_s,
            "peak_ram_gb": peak_kib * 1024 / BYTES_PER_GB,
            **gpus,
        }


def ready(
    config: Config, checkpoint: Checkpoint, plan: Plan | None, pool: ModelPool
) -> tuple[ModelRequest, list[str]]:
    """Check this machine against the plan, and say what to load and where.

    A model of other weights that the pool holds is released first. Where it holds this one, which an earlier cell
    of the pack found room for, memory is not asked for again.

    Returns:
        The request, and what the user should know although nothing is wrong.

    Raises:
        PlanError: something that the plan needs is not here; one sentence.
    """
    method = config.quantization.method
    keeps = (
        config.quantization.keep
        and method is not QuantizationMethod.none
        and "quantization_config" not in checkpoint.config
    )
    if plan is None:
        return ModelRequest(checkpoint, config.model, method, "auto"), []
    request = ModelRequest(
        checkpoint,
        config.model,
        method,
        plan.placement.device_map(),
        placement=plan.placement,
        keep_in=config.store_dir if keeps else None,
    )
    machine = None if pool.make_way(request) else this_machine(plan)
    needs = disk_needs(
        plan, checkpoint, store_dir=config.store_dir, results_dir=config.results_dir, keeps=keeps
    )
    return request, preflight(plan, machine, config.model.dtype, method, needs)


class OpensModel(Protocol):
    """Loads a model when it is needed: whole, or as many blocks as a layer needs."""

    def __call__(self, deepest_layer: int | None = None) -> LoadedModel:
        """The model."""
        ...


@dataclass(frozen=True)
class Source:
    """Where the examples of a trained probe come from."""

    config: Config
    checkpoint: Checkpoint
    data: QuestionSet | StatementSet
    open_model: OpensModel
    progress: Progress

    @property
    def described(self) -> dict[str, Any]:
        """What determines the activations of a token sequence."""
        return describe_model(self.checkpoint, self.config.model, self.config.quantization.method)


def passages_of(
    data: StatementSet, position: Position, checkpoint: Checkpoint, model: ModelConfig
) -> tuple[Passage, ...]:
    """Render, tokenize and locate: conversations use the tokenizer's own template wherever it has one."""
    tokenizer = load_tokenizer(checkpoint, model)
    own = "default" if tokenizer.chat_template else None
    template = ChatTemplate(tokenizer, model.chat_template or own)
    return statement_passages(data, position, tokenizer, template, context=checkpoint.context)


def read_layers(source: Source, passages: Sequence[Passage], layers: Sequence[int]) -> ActivationReading:
    """Read (or fetch from the store) some layers of some passages."""
    config = source.config

    def open_model(deepest_layer: int) -> LoadedModel:
        loaded = source.open_model(deepest_layer)
        if isinstance(loaded, TruncatedModel):
            source.progress.say(loaded.note)
        return loaded

    return read_activations(
        passages,
        layers,
        description=source.described,
        store_dir=config.store_dir,
        open_model=open_model,
        progress=source.progress,
    )
