"""Published question sets in their publishers' own columns, and in those of the hub's copies.

Knows, of each set, where question, answers, options and context lie, what must stay together, which rule its papers
judge by, and what is wrong with its files (answers withheld, a right option that always stands first, floats for whole
numbers).
A set is one function here and one YAML in ``conf/dataset``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from probegrid.data.cells import AnswerCells
from probegrid.data.example import Question
from probegrid.data.formats import NoRelease, Unpack
from probegrid.data.options import Options, read_options, right_option, with_options
from probegrid.data.sampling import paragraph_group
from probegrid.data.spelling import unspelled
from probegrid.data.table import Row, digits, is_gap, text
from probegrid.errors import DataError


@dataclass(frozen=True)
class Layout:
    """How one set is read."""

    read: Callable[[Row, str, str, Style], Question | None]
    """Makes a question of a row, by its default id, its name in a message and what was chosen; None: left out."""
    rule: str
    """By which its papers judge."""
    header: tuple[str, ...] = ()
    """The columns where the publisher's file has no header."""
    unpack: Unpack | None = None
    """Makes rows of the publisher's JSON object."""
    expand: Callable[[Row], list[Row]] | None = None
    """Makes several rows of one: the turns of a dialog."""
    left_out: str = ""
    """Why a row is left out, for the note that counts them."""
    shots_in_order: bool = False
    """Whether its papers show the first few-shot examples, and not drawn ones."""


@dataclass(frozen=True)
class Style:
    """What the user chose about a set."""

    seed: int = 0
    """Of the order of options."""
    show_options: bool = True
    """Whether options are shown, where a set can do without."""


def _first(row: Row, *names: str, where: str) -> Any:
    """The cell of the first column there is, of several names that copies give it."""
    for name in names:
        found: Any = row
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if not is_gap(found):
            return found
    raise DataError(f"{where} has none of {', '.join(names)}; it has: {', '.join(map(str, row))}.")


def _optional(row: Row, *names: str) -> Any:
    return next((row[name] for name in names if not is_gap(row.get(name))), None)


def _id(row: Row, row_id: str, where: str, *names: str) -> str:
    value = _optional(row, *names)
    return row_id if value is None else text(value, f"the id in {where}")


def _answers(value: object, where: str) -> tuple[str, ...]:
    return AnswerCells("answers").read(value, f"an answer in {where}") or ()


def _asked(value: object, where: str) -> str:
    """A question with its mark, which some sets leave out."""
    asked = text(value, f"the question in {where}").strip()
    return asked if asked.endswith(("?", ".", "!", ":")) else f"{asked}?"


def _nq_open(row: Row, row_id: str, where: str, style: Style) -> Question:
    asked = _asked(_first(row, "question", where=where), where)
    return Question(row_id, asked, _answers(_first(row, "answer", "golden_answers", where=where), where))


def _popqa(row: Row, row_id: str, where: str, style: Style) -> Question:
    details = row.get("metadata") if isinstance(row.get("metadata"), Mapping) else row
    answers = _answers(_first(row, "possible_answers", "golden_answers", where=where), where)
    subject = _optional(details or {}, "subj_id", "subj")
    return Question(
        _id(row, row_id, where, "id"),
        text(_first(row, "question", where=where), f"the question in {where}"),
        answers,
        group="" if subject is None else f"subject {text(subject, where)}",
    )


def _web_questions(row: Row, row_id: str, where: str, style: Style) -> Question | None:
    answers = _answers(_first(row, "answers", where=where), where)
    answers = tuple(answer for answer in answers if not answer.startswith(("http://", "https://")))
    if not answers:
        return None
    asked = _asked(_first(row, "question", "qText", where=where), where)
    return Question(_id(row, row_id, where, "qId"), asked, answers)


def _simpleqa(row: Row, row_id: str, where: str, style: Style) -> Question:
    asked = text(_first(row, "problem", where=where), f"the question in {where}")
    return Question(
        row_id, asked, (text(_first(row, "answer", where=where), f"the answer in {where}").strip(),)
    )


def _hotpotqa(row: Row, row_id: str, where: str, style: Style) -> Question:
    return Question(
        _id(row, row_id, where, "id", "_id"),
        text(_first(row, "question", where=where), f"the question in {where}"),
        _answers(_first(row, "answer", where=where), where),
        "\n".join(_paragraphs(row.get("context"))),
    )


def _paragraphs(context: object) -> Iterator[str]:
    """Titled paragraphs of HotpotQA, as the release and the hub have them."""
    if isinstance(context, Mapping):
        context = list(zip(context.get("title", ()), context.get("sentences", ()), strict=False))
    for title, sentences in context if isinstance(context, list) else ():
        yield f"{title}: {''.join(sentences)}"


def _halueval(row: Row, row_id: str, where: str, style: Style) -> Question:
    context = text(_first(row, "knowledge", where=where), f"the knowledge in {where}")
    asked = text(_first(row, "question", where=where), f"the question in {where}")
    answer = text(_first(row, "right_answer", "answer", where=where), f"the answer in {where}")
    return Question(row_id, asked, (answer,), context, paragraph_group(context))


def _svamp(row: Row, row_id: str, where: str, style: Style) -> Question:
    body = text(_first(row, "Body", where=where), f"the body in {where}").strip()
    asked = text(_first(row, "Question", where=where), f"the question in {where}").strip()
    end = "" if body.endswith((".", "?", "!")) else "."
    answer = _first(row, "Answer", where=where)
    if isinstance(answer, str) and re.fullmatch(r"\s*-?\d+\.\d+\s*", answer):
        answer = float(answer)
    return Question(
        _id(row, row_id, where, "ID"),
        f"{body}{end} {asked}",
        (digits(answer) if isinstance(answer, float) else text(answer, f"the answer in {where}"),),
        group=f"body {body}",  # variants of a problem share it
    )


def _gsm8k(row: Row, row_id: str, where: str, style: Style) -> Question:
    worked = text(_first(row, "answer", where=where), f"the answer in {where}")
    solution, mark, result = worked.rpartition("####")
    if not mark or not result.strip():
        raise DataError(f"the answer in {where} does not end in '#### <number>'; GSM8K's do.")
    plain = re.sub(r"<<[^<>]*>>", "", solution).strip()
    return Question(
        _id(row, row_id, where, "id"),
        text(_first(row, "question", where=where), f"the question in {where}"),
        (result.strip().replace(",", ""),),
        solution=plain,
    )


def _sciq(row: Row, row_id: str, where: str, style: Style) -> Question:
    right = text(_first(row, "correct_answer", where=where), f"the answer in {where}")
    wrong = [row.get(f"distractor{number}") for number in (1, 2, 3)]
    support = _optional(row, "support")
    made = Question(
        row_id,
        text(_first(row, "question", where=where), f"the question in {where}"),
        (right,),
        "" if support is None else text(support, f"the support in {where}"),
    )
    if not style.show_options:
        return made
    options = [text(one, f"a distractor in {where}") for one in wrong if not is_gap(one)]
    return with_options(made, [*options, right], len(options), str(style.seed))


def _lettered(row: Row, row_id: str, where: str, style: Style) -> Question:
    """ARC and CommonsenseQA: the release nests question and options, the hub lays them side by side."""
    asked = text(_first(row, "question.stem", "question", where=where), f"the question in {where}")
    options = read_options(_first(row, "question.choices", "choices", where=where), f"the options in {where}")
    key = _optional(row, "answerKey")
    if key is None:
        raise DataError(
            f"{where} has no answerKey: the answers of this split are withheld; choose another, "
            "dataset.split=validation say."
        )
    made = Question(_id(row, row_id, where, "id"), asked, ())
    return with_options(made, options.texts, right_option(options, key, f"the answerKey in {where}"))


def _mmlu(row: Row, row_id: str, where: str, style: Style) -> Question:
    asked = text(_first(row, "question", where=where), f"the question in {where}")
    options = Options(tuple(text(one, f"an option in {where}").strip() for one in _mmlu_options(row, where)))
    answer = _first(row, "answer", where=where)
    is_letter = isinstance(answer, str) and answer.strip().upper() in "ABCD"
    right = "ABCD".index(answer.strip().upper()) if is_letter else right_option(
        replace(options, texts=tuple(f"{n} {one}" for n, one in enumerate(options.texts))),
        answer, f"the answer in {where}", first=0,
    )  # fmt: skip
    return with_options(Question(row_id, asked, ()), options.texts, right)


def _mmlu_options(row: Row, where: str) -> Sequence[object]:
    if "choices" in row:
        found = unspelled(row["choices"])
        if isinstance(found, list):
            return found
    for names in (("A", "B", "C", "D"), tuple(f"choice{n}" for n in range(4))):
        if all(name in row for name in names):
            return [row[name] for name in names]
    raise DataError(
        f"{where} has no options (choices, A to D, or choice0 to choice3); it has: {', '.join(row)}."
    )


def _medqa(row: Row, row_id: str, where: str, style: Style) -> Question:
    asked = text(_first(row, "question", "sent1", where=where), f"the question in {where}")
    made = Question(row_id, asked, ())
    if "options" in row:
        options = read_options(row["options"], f"the options in {where}")
        key = _first(row, "answer_idx", where=where)
        return with_options(made, options.texts, right_option(options, key, f"the answer in {where}"))
    endings = [
        text(row[f"ending{n}"], f"an ending in {where}")
        for n in range(5)
        if not is_gap(row.get(f"ending{n}"))
    ]
    label = text(_first(row, "label", where=where), f"the label in {where}").strip()
    if not label.isdecimal() or int(label) >= len(endings):
        raise DataError(
            f"the label in {where} is {label}, and there are {len(endings)} endings, counted from 0."
        )
    return with_options(made, endings, int(label))


def _truthful_qa(row: Row, row_id: str, where: str, style: Style) -> Question:
    """The single-true task: the right option comes first in every row, so that the order is drawn."""
    asked = text(_first(row, "question", "Question", where=where), f"the question in {where}")
    targets = _optional(row, "mc1_targets")
    if targets is not None:
        options = read_options(targets, f"mc1_targets in {where}")
        if len(options.right) != 1:
            raise DataError(
                f"mc1_targets in {where} mark {len(options.right)} options as right; one is expected."
            )
        more = _beside(options, _optional(row, "mc2_targets"), where)
        question = Question(row_id, asked, (), more_options=more)
        return with_options(question, options.texts, options.right[0], str(style.seed))
    best, wrong = _best(row, where), _several(row, where, "incorrect_answers", "Incorrect Answers")
    lettered = list(dict.fromkeys([best, *wrong]))
    true = dict.fromkeys(_several(row, where, "correct_answers", "Correct Answers"))
    question = Question(
        row_id, asked, (), more_options=tuple((one, True) for one in true if one not in lettered)
    )
    return with_options(question, lettered, 0, str(style.seed))


def _beside(options: Options, targets: object, where: str) -> tuple[tuple[str, bool], ...]:
    """The options of the task with several true ones (mc2) that the task with one (mc1) has not."""
    if not targets:
        return ()
    what = f"mc2_targets in {where}"
    several = read_options(targets, what)
    marked = [(one, place in several.right) for place, one in enumerate(several.texts)]
    right = {one for place, one in enumerate(options.texts) if place in options.right}
    if wrong := next((one for one, true in marked if one in options.texts and true != (one in right)), None):
        raise DataError(f"{what} and mc1_targets do not agree on whether {wrong[:60]!r} is true.")
    return tuple((one, true) for one, true in marked if one not in options.texts)


def _truthful_qa_generation(row: Row, row_id: str, where: str, style: Style) -> Question:
    asked = text(_first(row, "question", "Question", where=where), f"the question in {where}")
    right = _several(row, where, "correct_answers", "Correct Answers")
    return Question(row_id, asked, tuple(dict.fromkeys([_best(row, where), *right])))


def _best(row: Row, where: str) -> str:
    return text(_first(row, "best_answer", "Best Answer", where=where), f"the best answer in {where}").strip()


def _several(row: Row, where: str, *names: str) -> tuple[str, ...]:
    cells = AnswerCells(names[0], separator=";")
    return tuple(
        one.strip() for one in cells.read(_first(row, *names, where=where), f"an answer in {where}") or ()
    )


def _bioasq(row: Row, row_id: str, where: str, style: Style) -> Question | None:
    """Factoids by every synonym, yes and no; lists are parts of one answer and summaries are essays: left out."""
    if row.get("type") not in ("factoid", "yesno") or is_gap(row.get("exact_answer")):
        return None
    snippets = [
        one["text"] for one in row.get("snippets") or () if isinstance(one, Mapping) and one.get("text")
    ]
    return Question(
        _id(row, row_id, where, "id"),
        text(_first(row, "body", where=where), f"the question in {where}"),
        _answers(row["exact_answer"], where),
        "\n".join(snippets),
    )


def _dialog(row: Row, row_id: str, where: str, style: Style) -> Question:
    """A turn that `_coqa_turns` or `_quac_turns` made."""
    return Question(
        text(row["id"], f"the id in {where}"),
        text(row["question"], f"a question of {where}"),
        _answers(row["answers"], where),
        text(row["story"], f"the story of {where}"),
        row["dialog"],
        history=tuple(row["history"]),
    )


def _coqa_turns(row: Row) -> list[Row]:
    """Every turn of a dialog, with the questions and the annotator's answers before it."""
    if not {"story", "questions", "answers"} <= row.keys():
        raise DataError(f"a CoQA dialog has story, questions and answers; this row has: {', '.join(row)}.")
    questions, answers = _said(row["questions"]), _said(row["answers"])
    more = row.get("additional_answers")
    others = [_said(one) for one in more.values() if one] if isinstance(more, Mapping) else []
    name = str(row.get("id") or paragraph_group(f"{row['story']}{questions}"))
    return _turns(name, row["story"], questions, [[one] for one in answers], others)


def _said(turns: Any) -> list[str]:
    """Texts of turns: a list of texts, of objects with ``input_text``, or an object of lists."""
    if isinstance(turns, Mapping):
        turns = turns["input_text"]
    return [str(turn["input_text"] if isinstance(turn, Mapping) else turn) for turn in turns]


def _turns(
    name: str,
    story: str,
    questions: Sequence[str],
    answers: Sequence[list[str]],
    others: Sequence[Sequence[str]],
) -> list[Row]:
    rows: list[Row] = []
    for turn, (question, found) in enumerate(zip(questions, answers, strict=True)):
        rows.append(
            {
                "id": f"{name}/{turn + 1}",
                "dialog": f"dialog {name}",
                "story": story,
                "question": question,
                "answers": [*found, *(other[turn] for other in others if turn < len(other))],
                "history": [
                    (asked, said[0] if said else "unknown")
                    for asked, said in zip(questions[:turn], answers[:turn], strict=True)
                ],
            }
        )
    return rows


def _quac_turns(row: Row) -> list[Row]:
    """Every turn of a QuAC section; ``CANNOTANSWER`` is no answer."""
    return _turns(
        row["id"],
        str(row["context"]).removesuffix("CANNOTANSWER").rstrip(),
        [one["question"] for one in row["qas"]],
        [[said["text"] for said in one["answers"] if said["text"] != "CANNOTANSWER"] for one in row["qas"]],
        [],
    )


def _records_at(*names: str) -> Unpack:
    """The list at a name of the publisher's object."""

    def unpack(release: dict[str, Any]) -> list[Row]:
        found: Any = release.get(names[0])
        if not isinstance(found, list):
            raise NoRelease
        for name in names[1:]:
            found = [inner for one in found for inner in one[name]]
        return list(found)

    return unpack


LAYOUTS = {
    "nq_open": Layout(_nq_open, "exact"),
    "popqa": Layout(_popqa, "contains"),
    "web_questions": Layout(_web_questions, "exact", left_out="their answers are web addresses"),
    "sciq": Layout(_sciq, "choice"),
    "bioasq": Layout(
        _bioasq, "squad", unpack=_records_at("questions"), left_out="they ask for lists or summaries"
    ),
    "truthful_qa": Layout(_truthful_qa, "choice"),
    "truthful_qa_generation": Layout(_truthful_qa_generation, "rouge_l"),
    "coqa": Layout(_dialog, "squad", unpack=_records_at("data"), expand=_coqa_turns),
    "quac": Layout(_dialog, "squad", unpack=_records_at("data", "paragraphs"), expand=_quac_turns),
    "svamp": Layout(_svamp, "numeric"),
    "gsm8k": Layout(_gsm8k, "numeric"),
    "hotpotqa": Layout(_hotpotqa, "hotpot_qa"),
    "simpleqa": Layout(_simpleqa, "contains"),
    "mmlu": Layout(_mmlu, "choice", header=("question", "A", "B", "C", "D", "answer"), shots_in_order=True),
    "arc": Layout(_lettered, "choice"),
    "commonsense_qa": Layout(_lettered, "choice"),
    "medqa": Layout(_medqa, "choice"),
    "halueval": Layout(_halueval, "squad"),
}
"""By the names of their choices of ``dataset``."""
