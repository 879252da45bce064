"""Questions in a table of one's own: columns of any name, answers however they are written, options or none.

Knows which column holds what, how a row becomes a question, and what a table has that its questions would need and no
key names. What the cells of answers mean is `cells`', what options mean is `options`'.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from probegrid.data.cells import AnswerCells, Booleans, Texts, is_missing, joined, texts_of, worded
from probegrid.data.example import Question
from probegrid.data.labelled import group_column_of
from probegrid.data.options import Options, read_options, right_option, with_options, without_last_gaps
from probegrid.data.sampling import asking, paragraph_group
from probegrid.data.spelling import unspelled
from probegrid.data.table import Row, Table, cell, is_gap, text
from probegrid.errors import ConfigError
from probegrid.schema import QuestionDatasetConfig
from probegrid.schema.ranges import number_field, seed_field

_OTHER_NAMES = {
    "question": ("question", "query", "problem"),
    "answers": ("answers", "answer", "golden_answers", "possible_answers"),
}
"""Names under which a column that was not named is looked for, in any case of the letters."""
_LIKE_OPTIONS = ("options", "choices", "choice0", "choice1", "distractor1", "ending0", "mc1_targets")


@dataclass
class QuestionColumns(QuestionDatasetConfig, ABC):
    """Which columns of a table hold what of its questions, and how their cells are read."""

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
    """Take the texts of answers and contexts as they stand: no list, number or gap is read out of one."""
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
    group_column: str | None = None
    """Column of what must stay on one side of a split; null: the questions on one paragraph do."""
    group: str | None = None
    """The same by its short name."""
    context_column: str | None = None
    """Column of the paragraph that holds the answer; null: ``context`` where there is one, else none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answers_separator == "":
            raise ConfigError(
                "dataset.answers_separator is empty; give what stands between answers, or null."
            )


@dataclass
class QuestionReader:
    """Makes questions of the rows of one table."""

    config: QuestionColumns
    question_column: str
    answers: list[AnswerCells]
    said: list[str]
    first_ids: dict[object, str] = field(default_factory=dict)
    """The id of the first row of each question, for rows that have no ids: what asks the same is the same question."""
    listed_contexts: int = 0
    """How many contexts were lists written as a text."""

    @classmethod
    def of(cls, config: QuestionColumns, table: Table) -> QuestionReader:
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
        asked = worded(cell(row, self.question_column, where), f"the question in {where}")
        context = self._context(row, where)
        column = group_column_of(config)
        group = cell(row, column, where) if column else None
        made = Question(
            id=_id(config, row, row_id, where),
            text=asked,
            references=(),
            context=context,
            group=paragraph_group(context) if is_missing(group) else text(group, f"the group in {where}"),
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

    def _side_by_side(self, row: Row, where: str) -> Options:
        """Options that have a column each; where letters name them, a gap between two moves none."""
        columns = self.config.option_columns
        cells = {column: cell(row, column, where) for column in columns}
        if is_lettered := all(len(column) == 1 for column in columns):
            columns = [column for column in columns if not is_missing(cells[column])]
        kept = without_last_gaps([cells[column] for column in columns])
        texts = tuple(text(value, f"an option in {where}") for value in kept)
        return Options(texts, tuple(columns) if is_lettered else ())

    def _context(self, row: Row, where: str) -> str:
        column = self.config.context_column
        value = cell(row, column, where) if column else row.get("context")
        if is_missing(value):
            return ""
        if not self.config.as_text and isinstance(found := unspelled(value), list) and found != value:
            self.listed_contexts += 1
            value = found
        if isinstance(value, list):  # PubMedQA's paragraphs
            return "\n".join(text(part, f"the context in {where}") for part in value if not is_gap(part))
        return text(value, f"the context in {where}")

    def notes(self) -> tuple[str, ...]:
        """How the cells were read."""
        separator = self.config.answers_separator
        said = list(self.said)
        if self.listed_contexts:
            said.append(
                f"contexts that are a list written as a text, each item a paragraph: {self.listed_contexts}"
            )
        if separator is not None and not any(cells.counts["separated"] for cells in self.answers):
            said.append(f"no answer holds dataset.answers_separator={separator}: each cell is one reference")
        return joined([said, *(cells.notes() for cells in self.answers)])

    def _with_options(self, made: Question, row: Row, where: str) -> Question | None:
        config = self.config
        if config.options_column:
            options = read_options(cell(row, config.options_column, where), f"the options in {where}")
        else:
            options = self._side_by_side(row, where)
        answer = cell(row, self.answers[0].column, where)
        if is_gap(answer):
            return None
        right = right_option(options, answer, f"the answer in {where}", config.first_option)
        return with_options(
            made, options.texts, right, str(config.option_seed) if config.shuffle_options else None
        )


def _column(config: QuestionColumns, table: Table, role: str, said: list[str]) -> str:
    """The column of a role: as it is named, or where it is not named and missing, the one of a like name."""
    key = f"{role}_column"
    named: str = getattr(config, key)
    if named in table.columns or named.partition(".")[0] in table.columns or named != role:
        table.require([named], f"Name yours with dataset.{key}=<column>")
        return named
    alike = [column for column in table.columns if column.lower() in _OTHER_NAMES[role]]
    if len(alike) != 1:
        or_statements = (
            ", or the columns of statements with dataset.text_column=<column> dataset.label_column=<column>"
            if role == "question"
            else ""
        )
        table.require([named], f"Name yours with dataset.{key}=<column>{or_statements}")
    said.append(f"the column '{alike[0]}' of {table.name} is read as dataset.{key}")
    return alike[0]


def _looks_like(config: QuestionColumns, table: Table, question: str, answers: Sequence[str]) -> list[str]:
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
    if group_column_of(config) is None and (group := names.get("group")) and question != group:
        found = [str(table.row(index).get(group)) for index in range(min(len(table), 100))]
        if len({*found}) < len(found):
            said.append(
                f"{table.name} has a column '{group}', and its rows are taken to have nothing in common: "
                f"dataset.group_column={group} keeps a group whole in splits and intervals"
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


def _id(config: QuestionColumns, row: Row, row_id: str, where: str) -> str:
    column = config.id_column or id_column_of(row)
    return text(cell(row, column, where), f"the id in {where}") if column else row_id


def id_column_of(columns: Iterable[str]) -> str | None:
    """The column that is called id, in any case of the letters."""
    return next((column for column in columns if column.lower() == "id"), None)
