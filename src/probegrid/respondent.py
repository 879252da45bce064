"""A model that questions are put to: how they are written for it, and where what it says is kept.

Knows prompts, readings and what identifies them; must not know probes, correctness or results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from probegrid.data.example import QuestionSet
from probegrid.errors import ConfigError
from probegrid.identity import describe_answers, describe_model
from probegrid.models.entailment import Classifier, find_classifier
from probegrid.models.load import LoadedModel, load_tokenizer
from probegrid.readings.answers import AnswerReading, read_answers
from probegrid.readings.choices import ChoiceReading, read_choices
from probegrid.readings.entailment import Entailments
from probegrid.readings.prompts import ChatTemplate, build_prompts, check_lengths

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
