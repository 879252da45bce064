"""From conversations and answers to token ids, and to the tokens a probe reads.

Knows tokenizers and where in a rendered text a statement stands.

What is read of a statement is a span of tokens, found through the tokenizer's offsets and checked by decoding it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from probegrid.data.example import Conversation, Statement, StatementSet
from probegrid.errors import CheckpointError, ConfigError, DataError
from probegrid.readings.identity import digest_of
from probegrid.readings.rendering import Rendered, rendered
from probegrid.schema import StatementRendering

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from probegrid.inference.generation import Generation
    from probegrid.readings.answers import AnswerReading
    from probegrid.readings.prompts import Prompt
    from probegrid.readings.templates import ChatTemplate


class Position(Enum):
    """Which tokens are read."""

    statement_end = "statement_end"
    """The token that holds the statement's last character that is no white space."""
    statement_mean = "statement_mean"
    """The mean over the statement's tokens."""
    next_token = "next_token"  # noqa: S105
    """The token after the statement."""
    answer_first = "answer_first"
    """The first token of the model's own answer; of an empty answer, the last of the prompt or of the thought."""
    answer_last = "answer_last"
    """The last token of the model's own answer; of an empty answer, the last of the prompt or of the thought."""
    answer_before_last = "answer_before_last"
    """The token before the answer's last: of one of one token, the last of the prompt or of the thought."""
    answer_mean = "answer_mean"
    """The mean over the answer's tokens; of an empty answer, the last of the prompt or of the thought."""
    prompt_last = "prompt_last"
    """The last token of the prompt, before the model answers."""
    last = "last"
    """The last token of the sequence."""


STATEMENT_POSITIONS = (Position.statement_end, Position.statement_mean, Position.next_token, Position.last)
ANSWER_POSITIONS = (
    Position.prompt_last,
    Position.answer_first,
    Position.answer_before_last,
    Position.answer_last,
    Position.answer_mean,
    Position.last,
)


@dataclass(frozen=True, slots=True)
class Example:
    """What a probe scores: a statement, or a question with the model's own answer."""

    id: str
    conversation: str
    """Id of the conversation it stands in; of a question, its group or itself."""
    text: str
    label: bool
    """Whether the statement is true, or the answer correct."""
    source: str = ""
    """The list a statement was taken from, for ``split=leave_one_source_out``."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What is read in one forward pass: a sequence that ends with the last token read, and the examples in it."""

    id: str
    token_ids: tuple[int, ...]
    examples: tuple[Example, ...]
    spans: tuple[tuple[int, int], ...]
    """For each example, the first token that is read and one past the last."""
    prompt: int | None = None
    """Tokens of its prompt, where a model reads what follows otherwise (`kinds.reads_both_ways`); None: it does not, or
    all is prompt."""
    digest: str = field(init=False)
    """What its tokens, spans and prompt are known by in the store (`readings.identity.digest_of`)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of(self.token_ids, self.spans, self.prompt))


def statement_passages(
    data: StatementSet,
    position: Position,
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate,
    *,
    context: int | None,
    bare: StatementRendering = StatementRendering.plain,
) -> tuple[Passage, ...]:
    """Render and tokenize every conversation and find its statements.

    Args:
        data: the conversations.
        position: which tokens of a statement are read.
        tokenizer: the model's, with offsets.
        template: how conversations are rendered.
        bare: how bare statements are.
        context: most tokens the model takes; None is no limit.

    Raises:
        ConfigError: ``position`` is one of answers.
        CheckpointError: the tokenizer gives no offsets.
        DataError: the template refuses or alters a conversation, or a statement is not found, does not decode to
            itself, has no token after it (``next_token``), or lies beyond the context.
    """
    check_position(position, STATEMENT_POSITIONS, "statements")
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"the tokenizer of {tokenizer.name_or_path} ({type(tokenizer).__name__}) does not tell where in the text "
            "its tokens are; statements need one with a tokenizer.json."
        )
    return tuple(
        _statement_passage(conversation, rendered(conversation, template, bare), position, tokenizer, context)
        for conversation in data.conversations
    )


def answer_passages(
    reading: AnswerReading,
    labels: Sequence[bool],
    position: Position,
    *,
    context: int | None,
    prompts_apart: bool = False,
) -> tuple[Passage, ...]:
    """Put each greedy answer behind its prompt, token by token as it was generated.

    Args:
        reading: the answers.
        labels: whether each is correct.
        position: which token is read.
        context: most tokens the model takes; None is no limit.
        prompts_apart: whether the model reads a prompt otherwise than what follows (`kinds.reads_both_ways`).

    Raises:
        ConfigError: ``position`` is one of statements.
        DataError: a prompt and its answer pass the context.
    """
    check_position(position, ANSWER_POSITIONS, "answers")
    return tuple(
        _answer_passage(prompt, answer, prompt.question.id, label, position, context, apart=prompts_apart)
        for prompt, answer, label in zip(reading.prompts, reading.greedy, labels, strict=True)
    )


def sample_passages(
    reading: AnswerReading, position: Position, *, context: int | None, prompts_apart: bool = False
) -> tuple[Passage, ...]:
    """Put each sample behind its prompt, question by question; an example's id is ``<question>/<sample>``.

    Args:
        reading: the answers, samples among them.
        position: which token is read.
        context: most tokens the model takes; None is no limit.
        prompts_apart: as of `answer_passages`.

    Raises:
        ConfigError: ``position`` is one of statements.
        DataError: a prompt and its sample pass the context.
    """
    check_position(position, ANSWER_POSITIONS, "answers")
    return tuple(
        _answer_passage(
            prompt, sample, f"{prompt.question.id}/{number}", False, position, context, apart=prompts_apart
        )
        for prompt, found in zip(reading.prompts, reading.generations, strict=True)
        for number, sample in enumerate(found[1:])
    )


def _answer_passage(
    prompt: Prompt,
    answer: Generation,
    name: str,
    label: bool,
    position: Position,
    context: int | None,
    *,
    apart: bool,
) -> Passage:
    question = prompt.question
    before = (*prompt.token_ids, *answer.thinking_ids)
    first, end = len(before), len(before) + len(answer.token_ids)
    example = Example(name, question.group or question.id, f"{question.text} {answer.text}", label)
    span = _read_of_answer(first, end, position)
    found = _passage(name, (*before, *answer.token_ids), (example,), (span,), context)
    # every position is the prompt's last token or behind it, so that none of the prompt was left out
    return replace(found, prompt=len(prompt.token_ids)) if apart else found


def _read_of_answer(first: int, end: int, position: Position) -> tuple[int, int]:
    """The tokens that are read of an answer from its first token to past its last."""
    if position is Position.answer_mean:
        return min(first, end - 1), end
    token = {
        Position.prompt_last: first - 1,
        Position.answer_first: min(first, end - 1),
        Position.answer_before_last: max(first - 1, end - 2),
    }.get(position, end - 1)
    return token, token + 1


def _statement_passage(
    conversation: Conversation,
    shown: Rendered,
    position: Position,
    tokenizer: PreTrainedTokenizerBase,
    context: int | None,
) -> Passage:
    encoded = tokenizer(
        shown.text, add_special_tokens=shown.is_plain, return_offsets_mapping=True, verbose=False
    )
    ids: list[int] = encoded["input_ids"]
    offsets: list[tuple[int, int]] = encoded["offset_mapping"]
    spans: list[tuple[int, int]] = []
    for statement in conversation.statements:
        where = f"statement {statement.id} of conversation {conversation.id}"
        span = token_span(offsets, *_characters(statement, shown.origin))
        decoded = tokenizer.decode(ids[slice(*span)], clean_up_tokenization_spaces=False)
        if not _holds(str(decoded), statement.text):
            raise DataError(f"the tokens of {where} decode to {decoded!r}, not to {statement.text!r}.")
        if position is Position.next_token and span[1] == len(ids):
            raise DataError(
                f"no token comes after {where}; use another of probe.positions, or read it as a turn, which ends: by "
                "prompt.render=assistant, or a chat template of a conversation."
            )
        spans.append(_read_of(span, position, len(ids)))
    return _passage(conversation.id, ids, _examples(conversation), spans, context)


def _characters(statement: Statement, origin: int) -> tuple[int, int]:
    """The statement's characters in the text, from its first to past its last that is no white space.

    The space around it is no part of what it says, and a template may have stripped it: what then stands in its place
    is the end of the turn.
    """
    said = statement.text
    start = statement.char_start + len(said) - len(said.lstrip())
    return origin + start, origin + statement.char_end - (len(said) - len(said.rstrip()))


def token_texts(token_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What each token adds to the text, so that together they are the whole.

    A character of several tokens stands at the last of them. Each is decoded with a few before it, for what it says
    may depend on them (a space that begins a word, and none that begins a text).

    Args:
        token_ids: of one answer.
        tokenizer: the model's.
    """
    ids, texts = list(token_ids), list[str]()
    held = begin = 0  # tokens told already; where the window of decoding begins
    for end in range(1, len(ids) + 1):
        before, after = (
            str(tokenizer.decode(ids[begin:to], clean_up_tokenization_spaces=False)) for to in (held, end)
        )
        is_whole = not after.endswith("\ufffd") or end == len(ids)
        texts.append(after[len(before) :] if is_whole else "")
        if is_whole:
            begin, held = held, end
    return texts


def token_span(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """The tokens that hold characters ``start`` to ``end`` (exclusive): the first and one past the last.

    Args:
        offsets: of each token, its first character and one past its last; a special token's are equal.
        start: first character.
        end: one past the last; if no token holds any, the span is empty.
    """
    tokens = [index for index, (first, after) in enumerate(offsets) if max(first, start) < min(after, end)]
    return (tokens[0], tokens[-1] + 1) if tokens else (0, 0)


def _holds(decoded: str, statement: str) -> bool:
    """Whether tokens decode to a statement: more may stand at either edge, and a tokenizer may normalize."""
    wanted = statement.strip()
    return wanted in decoded or _normalized(wanted) in _normalized(decoded)


def _normalized(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _read_of(span: tuple[int, int], position: Position, length: int) -> tuple[int, int]:
    start, end = span
    return {
        Position.statement_end: (end - 1, end),
        Position.statement_mean: (start, end),
        Position.next_token: (end, end + 1),
        Position.last: (length - 1, length),
    }[position]


def _examples(conversation: Conversation) -> tuple[Example, ...]:
    return tuple(
        Example(statement.id, conversation.id, statement.text, statement.label, statement.source)
        for statement in conversation.statements
    )


def _passage(
    name: str,
    token_ids: Sequence[int],
    examples: tuple[Example, ...],
    spans: Sequence[tuple[int, int]],
    context: int | None,
) -> Passage:
    """Leave out what comes after the last token that is read: under causal attention it changes nothing.

    A model that reads both ways never sees it: what it is asked about ends there.
    """
    for example, (_, end) in zip(examples, spans, strict=True):
        if context is not None and end > context:
            raise DataError(
                f"{example.id} of {name} is read at token {end}, but the model takes {context} tokens; leave it out of "
                "the dataset, or shorten what comes before it."
            )
    read = tuple(token_ids[: max(end for _, end in spans)])
    return Passage(name, read, examples, tuple(spans))


def check_position(position: Position, allowed: Sequence[Position], of: str) -> None:
    """Refuse a position that a kind of example does not have.

    Raises:
        ConfigError: ``position`` is not one of ``allowed``.
    """
    if position not in allowed:
        names = ", ".join(choice.value for choice in allowed)
        raise ConfigError(f"probe.positions={position.value} is not a position of {of}; allowed: {names}.")
