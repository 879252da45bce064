"""A look at the examples before anything is computed: the first of them as they were read, and what stands out.

Knows questions, statements and the rule they are judged by; what was dropped and how cells were read is said by whoever
read them, in the notes of the set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from probegrid.cell.grade import rule_of
from probegrid.data.example import Question, QuestionSet, Statement, StatementSet, have_one_class
from probegrid.data.options import LETTERS
from probegrid.evaluation.rules import CorrectnessRule
from probegrid.schema import PromptConfig

EXAMPLES = "examples"
"""The note of a result that holds the look."""
RULE = "rule"
"""The note of a result that says by which rule, with what threshold and language, its answers were judged."""
SHOWN = 3
"""Examples that are shown."""
_LONGEST, _LONGEST_OPTION = 90, 32
"""Characters of a text, and of an option, on the terminal."""
_LONGEST_KEPT = 1000


@dataclass(frozen=True)
class Look:
    """What a set of examples looks like."""

    rows: tuple[dict[str, Any], ...]
    """The first examples, by what each of their parts is called."""
    notes: tuple[str, ...]
    """What was dropped and why, how cells were read, and what stands out."""

    def lines(self) -> list[str]:
        """For a terminal: a line an example, then a line a note."""
        return [*(f"  {_line(row)}" for row in self.rows), *self.notes]


def look_at(examples: QuestionSet | StatementSet, prompt: PromptConfig | None = None) -> Look:
    """Look at what was drawn.

    Args:
        examples: what was drawn.
        prompt: how questions are asked, which tells what of them the model is not shown; None: not known.

    Raises:
        ConfigError: the set names a rule of correctness that is not known.
    """
    if isinstance(examples, QuestionSet):
        rows = tuple(map(_of_question, examples.questions[:SHOWN]))
        notes = (*_notes_on_questions(examples, rule_of(examples)), *_hidden(examples, prompt))
        return Look(rows, (*examples.notes, *notes))
    found = [(talk.group, one) for talk in examples.conversations for one in talk.statements]
    rows = tuple(_of_statement(one, group, examples.labelled) for group, one in found[:SHOWN])
    return Look(rows, (*examples.notes, *_notes_on_statements(examples)))


def notes_of(examples: QuestionSet | StatementSet, prompt: PromptConfig | None = None) -> dict[str, str]:
    """What a result says of its examples, by note: the look, and of questions the rule."""
    notes = {EXAMPLES: "\n".join(look_at(examples, prompt).lines())}
    if isinstance(examples, QuestionSet):
        rule = rule_of(examples)
        notes[RULE] = ", ".join([rule.name, *rule.settings])
    return notes


def _of_question(question: Question) -> dict[str, Any]:
    parts = {
        "question": _kept(question.text),
        "references": [_kept(reference) for reference in question.references[:20]],
        "options": [_kept(option) for option in question.options],
        "context": _kept(question.context),
        "earlier turns": len(question.history),
    }
    return {name: value for name, value in parts.items() if value or name == "references"}


def _of_statement(statement: Statement, group: str, labelled: bool) -> dict[str, Any]:
    label: dict[str, Any] = {"label": statement.label} if labelled else {}
    parts = {"source": statement.source, "group": group}
    return {"statement": _kept(statement.text), **label} | {
        name: value for name, value in parts.items() if value
    }


def _line(row: dict[str, Any]) -> str:
    if "statement" in row:
        label = f"{str(row['label']).lower()}: " if "label" in row else ""
        beside = ", ".join(f"{name} {row[name]}" for name in ("source", "group") if name in row)
        return f"{label}{_shown(row['statement'])}{f' ({beside})' if beside else ''}"
    references = " | ".join(map(_shown, row["references"][:SHOWN])) or "no answer"
    more = len(row["references"]) - SHOWN
    context = f"; context {_shown(row['context'])}" if "context" in row else ""
    options = "".join(
        f" {letter}. {_shown(option, _LONGEST_OPTION)}"
        for letter, option in zip(LETTERS, row.get("options", ()), strict=False)
    )
    turns = f"; after {row['earlier turns']} earlier turns" if "earlier turns" in row else ""
    answers = f"{references}{f' and {more} more' if more > 0 else ''}"
    return f"{_shown(row['question'])}{options} -> {answers}{context}{turns}"


def _notes_on_questions(data: QuestionSet, rule: CorrectnessRule) -> Iterator[str]:
    questions = data.questions
    yield _judged_by(rule)
    texts = [text for one in questions for text in (one.text, *one.references)]
    yield from _on_white_space(texts)
    wordings = Counter((one.text, one.context, one.options, one.history) for one in questions)
    if repeats := sum(count - 1 for count in wordings.values()):
        yield f"{repeats} questions ask what an earlier one asks, under other ids"
    nothing = [text for one in questions for text in one.references if not rule.normalize(text)]
    if nothing:
        yield (
            f"{len(nothing)} references are nothing once the rule '{rule.name}' has normalized them ({nothing[0]!r}): "
            "the answer to a question that has no other is compared as it is written"
        )


def _hidden(data: QuestionSet, prompt: PromptConfig | None) -> Iterator[str]:
    """What of the questions no model sees; a template of one's own shows what it likes."""
    if prompt is None or prompt.use_context or prompt.template is not None:
        return
    if count := sum(bool(one.context) for one in data.questions):
        yield (
            f"{count} questions have a context, which the prompt does not show: prompt.use_context=true shows it, "
            "and prompt=reading asks for it"
        )


def _judged_by(rule: CorrectnessRule) -> str:
    return f"answers are judged by the rule {', '.join([repr(rule.name), *rule.settings])}"


def _notes_on_statements(data: StatementSet) -> Iterator[str]:
    statements = [one for talk in data.conversations for one in talk.statements]
    yield from _on_white_space([one.text for one in statements])
    if data.labelled:
        true = sum(one.label for one in statements)
        only = ": one class, from which no probe learns" if have_one_class(data.conversations) else ""
        yield f"{true} statements are true, {len(statements) - true} false{only}"


def _on_white_space(texts: Sequence[str]) -> Iterator[str]:
    if outer := [text for text in texts if text != text.strip()]:
        yield f"{len(outer)} texts begin or end with white space, which is kept ({_shown(outer[0])})"


def _kept(text: str) -> str:
    return text if len(text) <= _LONGEST_KEPT else f"{text[:_LONGEST_KEPT]}..."


def _shown(text: str, most: int = _LONGEST) -> str:
    line = repr(text)
    return line if len(line) <= most else f"{line[: most - 3]}..."
