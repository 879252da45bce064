"""A model that questions are put to: how they are written for it, and where what it says is kept.

Knows prompts, readings and what identifies them; must not know probes, correctness or results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from probegrid.data.example import QuestionSet
from probegrid.identity import describe_answers
from probegrid.models.load import LoadedModel, load_tokenizer
from probegrid.readings.answers import AnswerReading, read_answers
from probegrid.readings.prompts import build_prompts, check_lengths

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from probegrid.models.checkpoint import Checkpoint
    from probegrid.progress import Progress
    from probegrid.schema import Config


@dataclass(frozen=True)
class Respondent:
    """The model of a cell, opened only for what the store does not hold."""

    config: Config
    checkpoint: Checkpoint
    open_model: Callable[[], LoadedModel]
    progress: Progress

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
