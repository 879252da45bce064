"""What a model says to the prompts of a probe's own: log-probabilities of choices, or replies.

Knows how such a prompt is put together (worked examples, as many as the context holds, then the prompt), and that a
choice must be one token after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from probegrid.data.example import Question, QuestionSet
from probegrid.errors import ConfigError
from probegrid.readings.needs import Ask
from probegrid.readings.prompts import Prompt
from probegrid.schema import DecodingConfig

if TYPE_CHECKING:
    from probegrid.inference.generation import Generation
    from probegrid.models.checkpoint import Checkpoint
    from probegrid.readings.answers import AnswerReading
    from probegrid.readings.session import ModelSession
    from probegrid.readings.templates import ChatTemplate

IsCorrect = Callable[[Question, "Generation"], bool]


@dataclass(frozen=True)
class Replies:
    """What the model said to one of a probe's own prompts about each of n questions."""

    logprobs: tuple[tuple[float, ...], ...] = ()
    """Of each choice after each prompt, natural, at temperature 1; empty where replies were generated."""
    texts: tuple[str, ...] = ()
    """The replies; empty where choices were read."""
    read_s: float = 0.0
    """Seconds of what was read for it, the answers of worked examples included."""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was asked."""


def draw_worked(name: str, ask: Ask, data: QuestionSet, shown: Sequence[Question]) -> tuple[Question, ...]:
    """The questions of the worked examples: of the few-shot pool, none of them in the answer prompt."""
    in_prompt = {question.id for question in shown}
    pool = [question for question in data.shots if question.id not in in_prompt]
    count = min(ask.worked_examples if ask.show else 0, len(pool))
    return tuple(Random(f"{ask.drawn_as or name}/{ask.seed}").sample(pool, count))


def check_choices(ask: Ask, template: ChatTemplate, checkpoint: Checkpoint, question: Question) -> None:
    """Refuse a tokenizer in which a choice is no single token, before anything is asked, which may take hours.

    Raises:
        ConfigError: it makes a choice of several tokens, or joins it with the prompt.
    """
    if ask.choices:
        choice_ids(ask.write(question, [_silence(), _silence()]), ask.choices, template, checkpoint)


def put(
    session: ModelSession,
    name: str,
    ask: Ask,
    answers: AnswerReading,
    worked: AnswerReading | None,
    is_correct: IsCorrect,
) -> Replies:
    """Put a probe's own prompt about every question to the model.

    Args:
        session: the model.
        name: of the prompt, for notes.
        ask: the prompt.
        answers: to the questions.
        worked: the answers to the questions of the worked examples; None: there are none.
        is_correct: whether an answer is.

    Raises:
        ConfigError: the longest prompt does not fit in the context even without worked examples.
    """
    template, checkpoint = session.template, session.checkpoint
    asked = [ask.write(prompt.question, found) for prompt, found in _pairs(answers)]
    examples = (
        []
        if worked is None or ask.show is None
        else [
            ask.show(prompt.question, found, is_correct(prompt.question, found[0]))
            for prompt, found in _pairs(worked)
        ]
    )
    room = 1 if ask.choices else ask.max_new_tokens
    held = examples[: _fitting(asked, examples, template, checkpoint.context, room)]
    notes = _notes(name, ask, len(held), len(examples))
    read_s = 0.0 if worked is None else worked.read_s
    texts = [template("".join([*held, text])) for text in asked]
    if ask.choices:
        texts = [template.closed(text) for text in texts]  # a choice is an answer, never a word of a thought
    token_ids = [tuple(ids) for ids in template.tokenize(texts)]
    if ask.choices:
        choices = choice_ids(asked[0], ask.choices, template, checkpoint)
        found = session.choices(token_ids, choices)
        return Replies(logprobs=found.logprobs, read_s=read_s + found.read_s, notes=notes)
    prompts = [
        Prompt(prompt.question, text, ids)
        for prompt, text, ids in zip(answers.prompts, texts, token_ids, strict=True)
    ]
    decoding = DecodingConfig(
        max_new_tokens=ask.max_new_tokens, batch_size=session.config.decoding.batch_size
    )
    replies = session.answers(prompts, decoding, ask.stop)
    return Replies(
        texts=tuple(reply.text for reply in replies.greedy), read_s=read_s + replies.read_s, notes=notes
    )


def choice_ids(
    prompt: str, choices: Sequence[str], template: ChatTemplate, checkpoint: Checkpoint
) -> list[int]:
    """The token that each choice is, right after a prompt.

    In a chat template the choice begins the model's own turn, so that the space it begins with is left out.

    Raises:
        ConfigError: the tokenizer makes a choice of several tokens, or joins it with the prompt.
    """
    text = template.closed(template(prompt))
    written = [choice.lstrip() if template.source else choice for choice in choices]
    before, *after = template.tokenize([text, *(text + choice for choice in written)])
    for choice, ids in zip(written, after, strict=True):
        if ids[:-1] != before:
            raise ConfigError(
                f"the tokenizer of {checkpoint.name} does not write {choice!r} as one token after the prompt, "
                "so that its probability cannot be read off; use another probe (gnll, semantic_entropy) for it."
            )
    return [ids[-1] for ids in after]


def _pairs(reading: AnswerReading) -> list[tuple[Prompt, tuple[Generation, ...]]]:
    return list(zip(reading.prompts, reading.generations, strict=True))


def _silence() -> Generation:
    from probegrid.inference.generation import Generation

    return Generation((), (), "", 0, 0.0, 0.0, "empty")


def _fitting(
    asked: Sequence[str], examples: Sequence[str], template: ChatTemplate, context: int | None, room: int
) -> int:
    """Most worked examples with which the longest prompt, and what comes after it, fit in the model's context."""
    if context is None:
        return len(examples)
    lengths = [len(ids) for ids in template.tokenize([template(text) for text in asked])]
    longest = asked[lengths.index(max(lengths))]
    for count in range(len(examples), -1, -1):
        (ids,) = template.tokenize([template("".join([*examples[:count], longest]))])
        if len(ids) + room <= context:
            return count
    raise ConfigError(
        f"a prompt of the probe's own has {max(lengths)} tokens and its reply may take {room}, but the model's context "
        f"is {context}; lower decoding.num_generations or decoding.max_new_tokens."
    )


def _notes(name: str, ask: Ask, held: int, drawn: int) -> tuple[str, ...]:
    if held >= (ask.worked_examples if ask.show else 0):
        return ()
    why = "the few-shot pool has no more" if held == drawn else "the context holds no more"
    return (f"{name} is asked with {held} of {ask.worked_examples} worked examples: {why}",)
