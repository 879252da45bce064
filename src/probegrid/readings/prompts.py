"""From questions to the token ids a model reads.

Knows the prompt formats of the field, chat templates and a tokenizer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from probegrid.data.example import Question, QuestionSet
from probegrid.errors import ConfigError
from probegrid.schema import PromptConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question, ready for the model."""

    question: Question
    text: str
    """The prompt as text, the chat template included."""
    token_ids: tuple[int, ...]


def choose_shots(data: QuestionSet, config: PromptConfig) -> tuple[Question, ...]:
    """Draw the worked examples, the same for every question, from a generator of their own.

    Raises:
        ConfigError: there are fewer examples than asked for.
    """
    if config.num_few_shot > len(data.shots):
        raise ConfigError(
            f"prompt.num_few_shot={config.num_few_shot} asks for more examples than the dataset can show "
            f"({len(data.shots)} that are not evaluated); lower it."
        )
    return tuple(random.Random(f"shots/{config.seed}").sample(data.shots, config.num_few_shot))


def render(config: PromptConfig, shots: Sequence[Question], question: Question) -> str:
    """Write the few-shot prompt of semantic_uncertainty (Kuhn et al. 2023), which ends in ``Answer:``."""
    lead = "" if config.brief_always else config.instruction
    return (
        lead
        + "".join(_block(config, shot, shot.references[0]) for shot in shots)
        + _block(config, question, None)
    )


def _block(config: PromptConfig, question: Question, answer: str | None) -> str:
    repeated = config.instruction if config.brief_always else ""
    context = f"Context: {question.context}\n" if config.use_context and question.context else ""
    end = "" if answer is None else f" {answer}\n\n"
    return f"{repeated}{context}Question: {question.text}\nAnswer:{end}"


class ChatTemplate:
    """How a prompt is wrapped for a model that was trained on conversations; plain text where there is no template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, choice: str | None) -> None:
        """Choose the template: None for plain text, ``default`` for the tokenizer's own, else the path of a Jinja file.

        Raises:
            ConfigError: the tokenizer has no template of its own, or the file is missing.
        """
        self._tokenizer = tokenizer
        self._choice = choice
        self.source = self._find(choice)

    def _find(self, choice: str | None) -> str | None:
        if choice is None:
            return None
        if choice == "default":
            if not self._tokenizer.chat_template:
                raise ConfigError(
                    "model.chat_template=default: this tokenizer has no chat template; use null or a file."
                )
            return str(self._tokenizer.get_chat_template())
        if not Path(choice).is_file():
            raise ConfigError(
                f"model.chat_template={choice} is not a file; give null, default, or the path of a Jinja file."
            )
        return Path(choice).read_text()

    def __call__(self, prompt: str) -> str:
        """The text the model reads for a user's prompt.

        Raises:
            ConfigError: the template is not valid, or refuses such a conversation.
        """
        if self.source is None:
            return prompt
        from jinja2 import TemplateError

        messages = [{"role": "user", "content": prompt}]
        try:
            rendered = self._tokenizer.apply_chat_template(
                messages, chat_template=self.source, add_generation_prompt=True, tokenize=False
            )
        except TemplateError as error:
            raise ConfigError(f"model.chat_template={self._choice} cannot be rendered: {error}") from error
        return str(rendered)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts; a rendered template brings its own special tokens, plain text gets the tokenizer's."""
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=self.source is None)[
            "input_ids"
        ]
        return ids


def build_prompts(
    data: QuestionSet, config: PromptConfig, tokenizer: PreTrainedTokenizerBase, chat_template: str | None
) -> list[Prompt]:
    """Render and tokenize the prompt of every question.

    Raises:
        ConfigError: too few examples to show, or a chat template that is not there or cannot be rendered.
    """
    shots = choose_shots(data, config)
    template = ChatTemplate(tokenizer, chat_template)
    texts = [template(render(config, shots, question)) for question in data.questions]
    token_ids = template.tokenize(texts)
    return [
        Prompt(question, text, tuple(ids))
        for question, text, ids in zip(data.questions, texts, token_ids, strict=True)
    ]


def check_lengths(prompts: Sequence[Prompt], max_new_tokens: int, context: int | None) -> None:
    """Refuse prompts that the model cannot hold together with their answers; None is no limit.

    Raises:
        ConfigError: a prompt and ``max_new_tokens`` pass ``context`` tokens.
    """
    longest = max(prompts, key=lambda prompt: len(prompt.token_ids))
    if context is not None and len(longest.token_ids) + max_new_tokens > context:
        raise ConfigError(
            f"the prompt of question {longest.question.id} has {len(longest.token_ids)} tokens and its answer may take "
            f"{max_new_tokens}, but the model's context is {context}; lower prompt.num_few_shot or "
            "decoding.max_new_tokens, or set prompt.use_context=false."
        )


def shared_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Count the token ids that all prompts begin with, leaving each at least one of its own."""
    first, last = (
        min(prompts),
        max(prompts),
    )  # the common prefix of all is that of the two extremes in dictionary order
    length = next(
        (index for index, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    return min(length, min(map(len, prompts)) - 1)
