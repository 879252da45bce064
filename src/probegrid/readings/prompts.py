"""From questions to the token ids a model reads.

Knows the prompt formats of the field.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from probegrid.data.example import Question, QuestionSet
from probegrid.errors import ConfigError
from probegrid.readings.identity import digest_of
from probegrid.readings.templates import ChatTemplate
from probegrid.schema import PromptConfig


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question, ready for the model."""

    question: Question
    text: str
    """The prompt as text, the chat template included."""
    token_ids: tuple[int, ...]
    digest: str = field(init=False)
    """What its tokens are known by in the store (`readings.identity.digest_of`)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of(self.token_ids))


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


def build_prompts(
    questions: Sequence[Question],
    shots: Sequence[Question],
    config: PromptConfig,
    template: ChatTemplate,
) -> tuple[Prompt, ...]:
    """Render and tokenize the prompt of every question.

    Raises:
        ConfigError: the chat template cannot be rendered.
    """
    texts = [template(render(config, shots, question)) for question in questions]
    token_ids = template.tokenize(texts) if texts else []
    return tuple(
        Prompt(question, text, tuple(ids))
        for question, text, ids in zip(questions, texts, token_ids, strict=True)
    )


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
