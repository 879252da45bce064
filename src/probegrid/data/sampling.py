"""Which examples are evaluated and which may be shown as few-shot examples.

Knows seeded draws and what makes two questions the same.

Every draw has a generator of its own, seeded by its purpose, so that no choice changes another:

- *Questions* are the first ``num_samples`` of a permutation that ``dataset.seed`` gives: asking for more adds
  to the same ones.
- *Few-shot examples* are the first 1000 of a fixed permutation of ``dataset.shot_split``, the same for every
  seed. Left out are those without an answer, and those that share id, wording or paragraph with any question
  of the evaluated split, asked or not.
- A *single table* (one file, or one split for both) is divided: a fifth of its questions, about 1000 at most,
  is set aside for few-shot examples before any is drawn. Paragraphs, and repeats of a question, stay whole.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar

from probegrid.data.example import Question, QuestionSet, content_hash
from probegrid.data.table import Row, Table
from probegrid.errors import DataError
from probegrid.schema import DatasetConfig

SHOT_LIMIT = 1000
"""Most questions kept for few-shot examples."""
_RESERVED_SHARE = 5  # one in five

T = TypeVar("T")
ParseQuestion = Callable[[Row, str, str], Question | None]
"""Makes a question of a row; also takes the row's default id and its name in a message. None: a gap stands where the
answer should, and the row is left out."""


def draw(
    items: Sequence[T], config: DatasetConfig, nouns: str, source: str
) -> tuple[tuple[T, ...], tuple[str, ...]]:
    """Draw ``config.num_samples`` items without replacement, in an order that the seed gives.

    Returns:
        The items, and a note where there are fewer than were asked for.
    """
    order = list(items)
    Random(f"{nouns}-{config.seed}").shuffle(order)
    notes: tuple[str, ...] = ()
    if config.num_samples > len(order):
        notes = (f"asked for {config.num_samples} {nouns}, {source} has {len(order)}: all of them are used",)
    return tuple(order[: config.num_samples]), notes


def question_set(
    config: DatasetConfig,
    tables: Sequence[Table],
    parse: ParseQuestion | Sequence[ParseQuestion],
    rule: str,
    answerable_only: bool = False,
) -> QuestionSet:
    """Choose questions from the first table, few-shot examples from the second or, without one, the first.

    Args:
        config: how many, and by which seed.
        tables: one or two.
        parse: makes a question of a row; one a table where their columns differ.
        rule: by which answers are judged.
        answerable_only: leave out the questions that have no answer.

    Raises:
        DataError: a row that cannot be read, one id for two questions, or no question left to ask.
    """
    table = tables[0]
    parses = [parse] * len(tables) if callable(parse) else parse
    pool, notes = _all_questions(table, parses[0])
    notes = [*table.notes, *notes]
    if not pool:
        raise DataError(
            f"{table.name} has no question with an answer: nothing stands where the answers of its {len(table)} rows "
            "should; name their column with dataset.answers_column=<column>."
        )
    source = table.name
    if len(tables) > 1:
        shots = _take_shots(_in_shot_order(tables[1], parses[1]), pool)
    else:
        total = len(pool)
        pool, shots = _divide(pool)
        source += f", beside {total - len(pool)} set aside for few-shot examples,"
    if not shots:
        notes.append(f"{tables[-1].name} leaves no question for few-shot examples")
    unanswerable = sum(not question.references for question in pool)
    if answerable_only and unanswerable:
        notes.append(
            f"{unanswerable} of {len(pool)} questions have no answer and are left out (answerable_only)"
        )
        pool = [question for question in pool if question.references]
    if not pool:
        raise DataError(
            f"{table.name} has no question with an answer; dataset.answerable_only=false keeps the others."
        )
    asked, draw_notes = draw(pool, config, "questions", source)
    if unanswered := sum(not question.references for question in asked):
        notes.append(f"{unanswered} of the {len(asked)} questions have no answer")
    return QuestionSet(asked, shots, rule, (*notes, *draw_notes))


def paragraph_group(context: str) -> str:
    """The group of the questions on one paragraph, which depend on each other; empty without a paragraph."""
    return content_hash([context])[:16] if context else ""


def _all_questions(table: Table, parse: ParseQuestion) -> tuple[list[Question], list[str]]:
    """Every question of a table, once; rows that repeat an id and its question add their references."""
    by_id: dict[str, Question] = {}
    dropped = 0
    for index in range(len(table)):
        question = parse(table.row(index), table.row_id(index), table.where(index))
        if question is None:
            dropped += 1
            continue
        first = by_id.setdefault(question.id, question)
        if asking(first) != asking(question):
            raise DataError(
                f"{table.where(index)} has the id '{question.id}' of an earlier row that asks something else."
            )
        if first.references != question.references:
            joined = tuple(dict.fromkeys(first.references + question.references))
            by_id[question.id] = replace(first, references=joined)
    notes = []
    if repeats := len(table) - dropped - len(by_id):
        notes.append(f"{repeats} rows of {table.name} repeat an earlier question and are joined with it")
    if dropped:
        notes.append(
            f"{dropped} of {len(table)} rows of {table.name} are left out: nothing stands where the answer should"
        )
    return list(by_id.values()), notes


def asking(question: Question) -> tuple[object, ...]:
    """What makes two rows the same question."""
    return question.text, question.context, question.options, question.history


def _divide(questions: list[Question]) -> tuple[list[Question], tuple[Question, ...]]:
    """Set whole groups aside for few-shot examples; at least one group stays."""
    groups: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        groups[question.group or _wording(question)].append(question)
    names = list(groups)
    Random("shots").shuffle(names)
    wanted = min(SHOT_LIMIT, max(1, len(questions) // _RESERVED_SHARE))
    reserved: dict[str, Question] = {}
    for name in names[:-1]:
        if len(reserved) >= wanted:
            break
        reserved.update((question.id, question) for question in groups[name])
    pool = [question for question in questions if question.id not in reserved]
    return pool, _take_shots(reserved.values(), pool)


def _in_shot_order(table: Table, parse: ParseQuestion) -> Iterator[Question]:
    order = list(range(len(table)))
    Random("shots").shuffle(order)
    parsed = (parse(table.row(index), table.row_id(index), table.where(index)) for index in order)
    return (question for question in parsed if question is not None)


def _take_shots(candidates: Iterable[Question], pool: Sequence[Question]) -> tuple[Question, ...]:
    """The first candidates that have an answer and share neither id nor wording nor group with the pool."""
    ids = {question.id for question in pool}
    wordings = {_wording(question) for question in pool}
    groups = {question.group for question in pool if question.group}
    shots: list[Question] = []
    for candidate in candidates:
        wording = _wording(candidate)
        if (
            candidate.id in ids
            or wording in wordings
            or candidate.group in groups
            or not candidate.references
        ):
            continue
        ids.add(candidate.id)
        wordings.add(wording)
        shots.append(candidate)
        if len(shots) == SHOT_LIMIT:
            break
    return tuple(shots)


def _wording(question: Question) -> str:
    """The words alone: two questions that differ in case, punctuation or spaces are the same."""
    return " ".join(re.findall(r"\w+", question.text.casefold())) or question.text
