"""The session: the model of a cell, opened only for what the store lacks, of which every reading is asked.

Knows what the model is (which identifies what it is asked), where it may lie and what it took. The model itself is held
by a pool, which the cells of a pack share.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from probegrid.errors import RunError
from probegrid.hardware.devices import BYTES_PER_GB
from probegrid.hardware.memory import free_bytes
from probegrid.inference.warming import load_kernels
from probegrid.models.classifier import Classifier
from probegrid.models.load import LoadedModel
from probegrid.models.load_truncated import TruncatedModel
from probegrid.models.preflight import disk_needs, preflight, this_machine
from probegrid.models.request import ModelRequest
from probegrid.planning.stored import stored_form
from probegrid.readings.activations import ActivationReading, read_activations
from probegrid.readings.answers import AnswerReading, Stops, read_answers
from probegrid.readings.choices import ChoiceReading, read_choices
from probegrid.readings.entailment import Entailments, OwnEntailments
from probegrid.readings.identity import describe_model
from probegrid.readings.options import Continuations, OptionReading, read_options
from probegrid.readings.similarity import Similarities
from probegrid.readings.templates import OWN, ChatTemplate
from probegrid.readings.thoughts import ThinkingReader
from probegrid.readings.token_steps import StepReading, read_steps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from probegrid.models.checkpoint import Checkpoint
    from probegrid.models.pool import ModelPool
    from probegrid.planning.plan import Plan
    from probegrid.progress import Progress
    from probegrid.readings.prompts import Prompt
    from probegrid.readings.spans import Passage
    from probegrid.schema import Config, DecodingConfig


class NotStored(RunError):
    """The store lacks what is asked for."""


@dataclass(frozen=True)
class Sharing:
    """Who reads along: replicas of this process, or jobs of the same cell."""

    readers: int = 1
    """Processes that share the readings, this one included."""
    began: float | None = None
    """When the first of them began, in seconds since the epoch: what the store had before was spent before. None: with
    this process."""
    call_others: Callable[[], None] = lambda: None
    """Called when something is missing, before anything is loaded."""


ALONE = Sharing()
"""Nobody does."""


class ModelSession:
    """Reads answers, choices, activations and entailments, each from the store or from the model.

    Attributes:
        found_s: of the seconds of all readings so far, those that were spent before, on what the store held.
        ways: of each kind of reading so far, how the model was read and what that was tried on (`inference.trial`).
    """

    def __init__(
        self,
        config: Config,
        checkpoint: Checkpoint,
        tokenizer: PreTrainedTokenizerBase,
        plan: Plan | None,
        pool: ModelPool,
        progress: Progress,
        since: float | None = None,
        sharing: Sharing = ALONE,
        *,
        may_open: bool = True,
    ) -> None:
        """Begin; nothing is loaded before it is needed.

        Args:
            config: of the cell, for its model, quantization, device map and folders.
            checkpoint: the model's.
            tokenizer: the checkpoint's.
            plan: where the model lies and how much is read at once; None: as the device has room.
            pool: holds the model.
            progress: told how far a reading is.
            since: what the store had before (seconds since the epoch) is read again; None: nothing is.
            sharing: who reads along.
            may_open: whether a model may be loaded for what the store lacks.
        """
        self._may_open = may_open
        self.config, self.checkpoint, self.tokenizer = config, checkpoint, tokenizer
        self.progress = progress
        self._plan, self._pool = plan, pool
        self._since, self._sharing = since, sharing
        self._load_s = self.found_s = 0.0
        self.ways: dict[str, Mapping[str, Any]] = {}
        if torch.cuda.is_initialized():  # else nothing was held yet, and torch knows no device
            for device in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(device)

    @cached_property
    def described(self) -> dict[str, Any]:
        """What determines what the model makes of a sequence of tokens."""
        config = self.config
        return describe_model(self.checkpoint, config.model, config.quantization.method, config.device_map)

    @cached_property
    def template(self) -> ChatTemplate:
        """How a prompt is wrapped for this model."""
        return ChatTemplate.of_questions(self.tokenizer, self.config.model)

    @cached_property
    def _end_of_turn(self) -> tuple[int, ...]:
        """What ends the assistant's turn: a model of conversations says it in plain text too."""
        if self.template.source is not None or not self.tokenizer.chat_template:
            return self.template.end_of_turn
        return ChatTemplate(self.tokenizer, OWN).end_of_turn

    def of_another(
        self, config: Config, checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerBase
    ) -> ModelSession:
        """A session of another model, which takes this one's place in memory when it is opened."""
        return ModelSession(config, checkpoint, tokenizer, None, self._pool, self.progress, self._since)

    def answers(
        self, prompts: Sequence[Prompt], decoding: DecodingConfig, stop: Sequence[str]
    ) -> AnswerReading:
        """The answers to prompts, see `readings.answers`, behind thoughts where it thinks (`readings.thoughts`)."""
        reader = ThinkingReader(
            lambda asked, how, strings: self._generate(asked, how, Stops(tuple(strings), self._end_of_turn)),
            # what ends a turn may end a part of a thought alone (gpt-oss's channels)
            lambda asked, how, strings: self._generate(asked, how, Stops(tuple(strings), of_thought=True)),
            self.tokenizer,
            self.template.marks,
            self.checkpoint.context,
        )
        return reader.answers(prompts, decoding, stop)

    def _generate(self, prompts: Sequence[Prompt], decoding: DecodingConfig, stops: Stops) -> AnswerReading:
        reading = read_answers(
            prompts,
            decoding,
            stops,
            description=self.described,
            store_dir=self.config.store_dir,
            tokenizer=self.tokenizer,
            open_model=self.open,
            progress=self.progress,
            since=self._since,
            readers=self._sharing.readers,
            began=self._sharing.began,
        )
        self._note("answers", reading.way)
        self.found_s += reading.found_s
        return reading

    def choices(self, prompts: Sequence[tuple[int, ...]], choices: Sequence[int]) -> ChoiceReading:
        """How likely each of some tokens is to come next after each prompt, see `readings.choices`."""
        reading = read_choices(
            prompts,
            choices,
            batch_size=self.config.decoding.batch_size,
            description=self.described,
            store_dir=self.config.store_dir,
            tokenizer=self.tokenizer,
            open_model=self.open,
            progress=self.progress,
            since=self._since,
            readers=self._sharing.readers,
            began=self._sharing.began,
        )
        self._note("choices", reading.way)
        self.found_s += reading.found_s
        return reading

    def options(self, prompts: Sequence[tuple[int, ...]], options: Sequence[Continuations]) -> OptionReading:
        """How likely each prompt's options are behind it, see `readings.options`."""
        reading = read_options(
            prompts,
            options,
            batch_size=self.config.decoding.batch_size,
            description=self.described,
            store_dir=self.config.store_dir,
            tokenizer=self.tokenizer,
            open_model=self.open,
            progress=self.progress,
            since=self._since,
            readers=self._sharing.readers,
            began=self._sharing.began,
        )
        self._note("options", reading.way)
        self.found_s += reading.found_s
        return reading

    def distributions(
        self, prompts: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]]
    ) -> StepReading:
        """What the model thinks at each token of an answer to each prompt, see `readings.token_steps`."""
        reading = read_steps(
            prompts,
            answers,
            batch_size=self.config.decoding.batch_size,
            description=self.described,
            store_dir=self.config.store_dir,
            tokenizer=self.tokenizer,
            open_model=self.open,
            progress=self.progress,
            since=self._since,
            readers=self._sharing.readers,
            began=self._sharing.began,
        )
        self.found_s += reading.found_s
        return reading

    def activations(self, passages: Sequence[Passage], layers: Sequence[int]) -> ActivationReading:
        """The residual stream at some layers of some passages, see `readings.activations`."""
        reading = read_activations(
            passages,
            layers,
            description=self.described,
            store_dir=self.config.store_dir,
            open_model=self.open,
            progress=self.progress,
            since=self._since,
            readers=self._sharing.readers,
            began=self._sharing.began,
        )
        self._note("activations", reading.way)
        self.found_s += reading.found_s
        return reading

    def entailments(self, classifier: Checkpoint, asked_for: str) -> Entailments:
        """Which texts entail which, by a second model; the first stays in memory if it fits beside.

        Args:
            classifier: as `models.classifier.find_classifier` gives it.
            asked_for: key of the store's entry that the texts are of.
        """
        found = Entailments(
            classifier,
            lambda: self._load_classifier(classifier),
            asked_for=asked_for,
            store_dir=self.config.store_dir,
            progress=self.progress,
            since=self._since,
            readers=self._sharing.readers,
            began=self._sharing.began,
        )
        self.found_s += found.found_s
        return found

    def similarities(self, classifier: Checkpoint, asked_for: str) -> Similarities:
        """How alike texts are, by a cross-encoder; as `entailments`."""
        found = Similarities(
            classifier,
            lambda: self._load_classifier(classifier),
            asked_for=asked_for,
            store_dir=self.config.store_dir,
            progress=self.progress,
            since=self._since,
            readers=self._sharing.readers,
            began=self._sharing.began,
        )
        self.found_s += found.found_s
        return found

    def own_entailments(self) -> OwnEntailments:
        """Which texts entail which, by what the model itself says."""
        return OwnEntailments(self.options, self.template)

    def _check_may_open(self) -> None:
        if not self._may_open:
            raise NotStored("the store does not hold all that is asked for, and no model may be loaded.")

    def _note(self, kind: str, way: Mapping[str, Any]) -> None:
        if way:
            self.ways[kind] = way

    def _load_classifier(self, classifier: Checkpoint) -> Classifier:
        self._check_may_open()
        self._sharing.call_others()
        return Classifier.load(classifier, self._make_room)

    def open(self, deepest_layer: int | None = None) -> LoadedModel:
        """The model, loaded now unless the pool holds it.

        Args:
            deepest_layer: blocks to load, without the head, for activations; None: the whole model.

        Raises:
            PlanError: something that the plan needs is not here.
            CheckpointError: weights that are missing, incomplete, damaged, or not of this architecture.
            NotStored: no model may be loaded.
        """
        self._check_may_open()
        self._sharing.call_others()
        before = self._pool.loaded
        with self._kernels_loaded_beside():
            loaded = self._pool.get(self._request, deepest_layer)
        if loaded is not before:
            self._load_s += loaded.load_s
            for note in loaded.notes:
                self.progress.say(note)
            if isinstance(loaded, TruncatedModel):
                self.progress.say(loaded.note)
        return replace(loaded, limits=None if self._plan is None else self._plan.limits)

    @contextmanager
    def _kernels_loaded_beside(self) -> Iterator[None]:
        """Load our kernels for the plan's GPUs meanwhile, which the first pass would wait for."""
        placement = None if self._plan is None else self._plan.placement
        if placement is None or not placement.gpus or self._pool.loaded is not None:
            yield
            return
        dtype = getattr(torch, self.config.model.dtype.value)
        loading = load_kernels(self.checkpoint.config, dtype, placement.gpus)
        try:
            yield
        finally:
            loading.join()

    @cached_property
    def _request(self) -> ModelRequest:
        """What exactly is to be loaded, once this machine was found to have what the plan needs.

        A model of other weights that the pool holds is released first. Where it holds this one, which an earlier cell
        of the pack found room for, memory is not asked for again.
        """
        config, plan, checkpoint = self.config, self._plan, self.checkpoint
        method = config.quantization.method
        if plan is None:
            return ModelRequest(checkpoint, config.model, method)
        is_stored = stored_form(checkpoint.config) is not None
        keeps = config.quantization.keep and method.packs and not is_stored
        request = ModelRequest(
            checkpoint,
            config.model,
            method,
            placement=plan.placement,
            keep_in=config.store_dir if keeps else None,
        )
        machine = None if self._pool.make_way(request) else this_machine(plan)
        needs = disk_needs(
            plan, checkpoint, store_dir=config.store_dir, results_dir=config.results_dir, keeps=keeps
        )
        for note in preflight(plan, machine, config.model.dtype, method, needs):
            self.progress.say(note)
        return request

    def _make_room(self, device: torch.device, needed: int) -> None:
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
        return {"load_s": self._load_s, "peak_ram_gb": peak_kib * 1024 / BYTES_PER_GB, **gpus}
