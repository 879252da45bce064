"""A user's own file: questions with answers, or statements with labels.

Knows how columns of any name map onto questions. A file with a column of statements holds statements, each a
conversation of one message; any other holds questions. What the cells of answers mean is `cells`', what options mean is
`options`'; rows of one question are joined.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from probegrid.data import squad, trivia_qa
from probegrid.data.cells import AnswerCells, Booleans, Texts, joined, texts_of
from probegrid.data.example import Question, QuestionSet, StatementSet, have_one_class
from probegrid.data.formats import NoRelease
from probegrid.data.labelled import StatementColumns, copies_and_contradictions, statement_conversations
from probegrid.data.options import Options, read_options, right_option, with_options
from probegrid.data.sampling import asking, draw, paragraph_group, question_set
from probegrid.data.source import read_splits
from probegrid.data.table import Row, Table, cell, is_gap, text
from probegrid.errors import ConfigError, DataError
from probegrid.schema import QuestionDatasetConfig
from probegrid.schema.ranges import number_field, seed_field

OWN_RULE = "squad"
"""Rule of correctness of a file of one's own, unless another is chosen."""
_OTHER_NAMES = {
    "question": ("question", "query", "problem"),
    "answers": ("answers", "answer", "golden_answers", "possible_answers"),
}
"""Names under which a column that was not named is looked for, in any case of the letters."""
_LIKE_OPTIONS = ("options", "choices", "choice0", "choice1", "distractor1", "ending0", "mc1_targets")


@dataclass
class JsonlConfig(StatementColumns, QuestionDatasetConfig):
    """A user's own questions or statements."""

    path: str | None = None
    """Local file, local folder of splits, glob, or hub id."""
    subset: str | None = None
    """Configuration of a hub dataset."""
    records: str | None = None
    """Where in a JSON object the list of rows is: ``questions``, ``data.items``; null: the file is that list."""
    question_column: str = "question"
    """Column of the question; ``question.stem`` is a part of an object."""
    answers_column: str = "answers"
    """Column of the accepted answers: a text, a list whose first few-shot examples show (written as a text or not), or
    an answer structure of SQuAD or TriviaQA. An empty list: the question has none; a gap: the row is left out."""
    answer_columns: list[str] = field(default_factory=list)
    """Columns of the accepted answers where there are several, instead of ``answers_column``."""
    answers_separator: str | None = None
    """What stands between the answers of one cell (``;``); null: a cell is one answer, or a list."""
    booleans: Booleans | None = None
    """How a true or false answer is written: ``yes_no`` or ``true_false``; null: it is refused."""
    as_text: bool = False
    """Take the texts of answers as they stand: no list, number or gap is read out of one."""
    options_column: str | None = None
    """Column of the options, of which the answer names one (by letter, label, place or text)."""
    option_columns: list[str] = field(default_factory=list)
    """Columns of the options where each has one of its own (``[A,B,C,D]``)."""
    first_option: int | None = number_field(None, least=0, most=1)
    """What the answers call the first option, 0 or 1; null: what can be meant is found, else refused."""
    shuffle_options: bool = False
    """Letter the options in a drawn order: sets that always write the right one first give it away."""
    option_seed: int = seed_field()
    """Seed of that order."""
    id_column: str | None = None
    """Column of the id; null: ``id`` (or ``ID``) where there is one, else the row's place. Statements too."""
    context_column: str | None = None
    """Column of the paragraph that holds the answer; null: ``context`` where there is one, else none."""
    answerable_only: bool = False
    """Leave out the questions that have no answer; a note says how many."""
    labelled: bool = True
    """Whether statements have a column of labels; false only for scoring them, which needs none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answers_separator == "":
            raise ConfigError(
                "dataset.answers_separator is empty; give what stands between answers, or null."
            )


def load(config: JsonlConfig) -> QuestionSet | StatementSet:
    """Read the file as what it holds: statements where it has their column, else questions.

    Raises:
        DataError: the file is missing, empty or lacks a column, a cell is of another kind, or one id is
            that of two rows.
    """
    splits = read_splits(
        config, (config.split, config.shot_split), config.subset, _of_release, config.records
    )
    table = next(splits)
    if config.text_column in table.columns:
        return _statement_set(config, table)
    if {"messages", "labels"} <= {*table.columns}:
        raise DataError(
            f"{table.name} holds conversations with labelled statements, which dataset=ntml dataset.path={config.path} "
            "reads."
        )
    tables = [table, *splits]
    readers = [_Reader.of(config, table) for table in tables]
    by_table = iter(readers)

    found = question_set(
        config, [replace(table, row=_tagged(table, next(by_table))) for table in tables], _parse, _rule(config),
        config.answerable_only,
    )  # fmt: skip
    notes = joined([readers[0].notes(), *(reader.notes() for reader in readers[1:])])
    return replace(found, notes=(*notes, *found.notes))


def _rule(config: JsonlConfig) -> str:
    return "choice" if config.options_column or config.option_columns else OWN_RULE


def _of_release(release: dict[str, Any]) -> list[Row]:
    """The rows of SQuAD's and TriviaQA's official files, under whatever name they come."""
    for unpack in (squad.unpack, trivia_qa.unpack):
        try:
            return unpack(release)
        except (KeyError, TypeError):
            continue
    raise NoRelease


_READER = "\0reader"


def _tagged(table: Table, reader: _Reader) -> Any:
    """The rows of a table, each with the reader of its columns, which differ between splits."""
    return lambda index: {_READER: reader, **table.row(index)}


def _parse(row: Row, row_id: str, where: str) -> Question | None:
    reader: _Reader = row[_READER]
    return reader.question({name: value for name, value in row.items() if name != _READER}, row_id, where)


@dataclass
class _Reader:
    """Makes questions of the rows of one table."""

    config: JsonlConfig
    question_column: str
    answers: list[AnswerCells]
    said: list[str]
    first_ids: dict[object, str] = field(default_factory=dict)
    """The id of the first row of each question, for rows that have no ids: what asks the same is the same question."""

    @classmethod
    def of(cls, config: JsonlConfig, table: Table) -> _Reader:
        """Find the columns.

        Raises:
            DataError: one is missing.
        """
        said: list[str] = []
        question = _column(config, table, "question", said)
        if config.answer_columns:
            answers = config.answer_columns
            table.require(answers, "Name yours with dataset.answer_columns=[<column>,<column>]")
        else:
            answers = [_column(config, table, "answers", said)]
        for key in ("id_column", "context_column", "options_column"):
            if column := getattr(config, key):
                table.require([column], f"Name yours with dataset.{key}=<column>")
        table.require(config.option_columns, "Name yours with dataset.option_columns=[<column>,<column>]")
        cells = [
            AnswerCells(
                column, config.answers_separator, config.booleans, config.as_text,
                Texts.words if config.as_text else texts_of(table, column),
            )
            for column in answers
        ]  # fmt: skip
        return cls(config, question, cells, [*said, *_looks_like(config, table, question, answers)])

    def question(self, row: Row, row_id: str, where: str) -> Question | None:
        """The question of a row; None where a gap stands in place of its answer.

        Raises:
            DataError: a cell is of another kind.
        """
        config = self.config
        asked = text(cell(row, self.question_column, where), f"the question in {where}")
        context = _context(config, row, where)
        group = cell(row, config.group_column, where) if config.group_column else None
        made = Question(
            id=_id(config, row, row_id, where),
            text=asked,
            references=(),
            context=context,
            group=paragraph_group(context) if is_gap(group) else text(group, f"the group in {where}"),
        )
        if config.options_column or config.option_columns:
            return self._once(self._with_options(made, row, where), row_id)
        found = [
            cells.read(cell(row, cells.column, where), f"an answer in {where}") for cells in self.answers
        ]
        if all(answers is None for answers in found):
            return None
        references = tuple(dict.fromkeys(one for answers in found for one in answers or ()))
        return self._once(replace(made, references=references), row_id)

    def _once(self, question: Question | None, row_id: str) -> Question | None:
        """A question without an id of its own under that of the first row that asks the same."""
        if question is None or question.id != row_id:
            return question
        return replace(question, id=self.first_ids.setdefault(asking(question), row_id))

    def notes(self) -> tuple[str, ...]:
        """How the cells were read."""
        return joined([self.said, *(cells.notes() for cells in self.answers)])

    def _with_options(self, made: Question, row: Row, where: str) -> Question | None:
        config = self.config
        if config.options_column:
            options = read_options(cell(row, config.options_column, where), f"the options in {where}")
        else:
            cells = [cell(row, column, where) for column in config.option_columns]
            options = Options(
                tuple(text(value, f"an option in {where}") for value in cells if not is_gap(value)),
                tuple(config.option_columns) if all(len(name) == 1 for name in config.option_columns) else (),
            )
        answer = cell(row, self.answers[0].column, where)
        if is_gap(answer):
            return None
        right = right_option(options, answer, f"the answer in {where}", config.first_option)
        return with_options(
            made, options.texts, right, str(config.option_seed) if config.shuffle_options else None
        )


def _column(config: JsonlConfig, table: Table, role: str, said: list[str]) -> str:
    """The column of a role: as it is named, or where it is not named and missing, the one of a like name."""
    key = f"{role}_column"
    named: str = getattr(config, key)
    if named in table.columns or named.partition(".")[0] in table.columns or named != role:
        table.require([named], f"Name yours with dataset.{key}=<column>")
        return named
    alike = [column for column in table.columns if column.lower() in _OTHER_NAMES[role]]
    if len(alike) != 1:
        table.require([named], f"Name yours with dataset.{key}=<column>")
    said.append(f"the column '{alike[0]}' of {table.name} is read as dataset.{key}")
    return alike[0]


def _looks_like(config: JsonlConfig, table: Table, question: str, answers: Sequence[str]) -> list[str]:
    """What a file has that its questions would need, and that no key names."""
    said: list[str] = []
    has_options = config.options_column or config.option_columns
    names = {column.lower(): column for column in table.columns}
    options = [names[name] for name in _LIKE_OPTIONS if name in names]
    letters = [column for column in ("A", "B", "C", "D", "E") if column in table.columns]
    if not has_options and (options or len(letters) > 1):
        key = (
            f"dataset.option_columns=[{','.join(letters)}]"
            if not options
            else f"dataset.options_column={options[0]}, or dataset.option_columns=[<column>,<column>],"
        )
        said.append(
            f"{table.name} looks like multiple choice ({', '.join(options or letters)}), and its options are not "
            f"shown: {key} shows them"
        )
    if "body" in names and question.lower() == "question":
        said.append(
            f"{table.name} has a column '{names['body']}' beside its question, which is not shown: "
            f"dataset.context_column={names['body']} with prompt.use_context=true shows it"
        )
    solutions = sum(
        _is_solution(table.row(index).get(column))
        for index in range(min(len(table), 100))
        for column in answers
    )
    if solutions:
        said.append(
            f"answers of {table.name} are whole solutions that end in '#### <number>', and no model writes them word "
            "for word: dataset=gsm8k reads their numbers"
        )
    return said


def _is_solution(value: object) -> bool:
    return isinstance(value, str) and "\n#### " in value


def _id(config: JsonlConfig, row: Row, row_id: str, where: str) -> str:
    column = config.id_column or _id_column(row)
    return text(cell(row, column, where), f"the id in {where}") if column else row_id


def _id_column(columns: Iterable[str]) -> str | None:
    """The column that is called id, in any case of the letters."""
    return next((column for column in columns if column.lower() == "id"), None)


def _context(config: JsonlConfig, row: Row, where: str) -> str:
    value = cell(row, config.context_column, where) if config.context_column else row.get("context")
    if is_gap(value):
        return ""
    if isinstance(value, list):  # PubMedQA's paragraphs
        return "\n".join(text(part, f"the context in {where}") for part in value if not is_gap(part))
    return text(value, f"the context in {where}")


def _statement_set(config: JsonlConfig, table: Table) -> StatementSet:
    if config.labelled:
        table.require(
            [config.label_column],
            "Name yours with dataset.label_column=<column>; statements without labels can be scored, with "
            "dataset.labelled=false",
        )
    column = config.id_column or _id_column(table.columns)
    conversations, notes = statement_conversations(table, config, id_column=column, labelled=config.labelled)
    if len({conversation.id for conversation in conversations}) < len(conversations):
        raise DataError(
            f"two statements of {table.name} have the same id; choose another column with dataset.id_column."
        )
    if config.labelled:
        notes += copies_and_contradictions(conversations)
    drawn, of_draw = draw(conversations, config, "statements", table.name)
    is_one = config.labelled and have_one_class(conversations)
    return StatementSet(drawn, (*notes, *of_draw), labelled=config.labelled, has_one_class=is_one)
