"""What is judged of an answer, and cells that find it: numbers, letters, patterns; what was not found is counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import probegrid
from probegrid.cell.grade import Grader
from probegrid.cell.look import look_at
from probegrid.data.example import Question, QuestionSet
from probegrid.errors import ConfigError
from probegrid.evaluation.rules import find_rule
from probegrid.inference.generation import Generation
from probegrid.schema import PromptConfig

NUMBER = Question("n", "How many?", ("42",))
CHOICE = Question("c", "Which?", ("B", "two"), options=("one", "two"))


def said(text: str, ended: str = "stop") -> Generation:
    return Generation((1,), (-0.1,), text, 1, 0.0, 0.0, ended)


def grader(rule: str, pattern: str | None = None) -> Grader:
    return Grader.of(QuestionSet((NUMBER,), (), rule), PromptConfig(answer_pattern=pattern))


@pytest.mark.parametrize(
    ("rule", "pattern", "text", "ended", "extracted", "correct"),
    [
        ("squad", None, "42", "stop", "42", True),
        ("numeric", None, "6 * 7 = 42", "stop", "42", True),
        ("numeric", None, "6 * 7 = 42", "length", None, False),
        ("numeric", None, "<think>41</think>42", "eos", "42", True),
        ("numeric", None, "<think>The answer is 42", "length", None, False),
        ("numeric", r"final: (.*)", "41\nfinal: 42 birds", "stop", "42", True),
        ("numeric", r"final: (.*)", "41\nfinal: 6 * 7 = 42", "length", None, False),
        ("numeric", r"final: (.*)", "final: 42\nor", "length", "42", True),
        ("numeric", None, "The answer is 42", "length", None, False),
        ("numeric", r"final: (.*)", "It is 42", "stop", "42", True),
        ("squad", r"final: (.*)", "41\nfinal: 42", "stop", "42", True),
        ("squad", r"final: (.*)", "42", "stop", None, False),
        ("exact", r"(?i)answer: (\S+)", "", "empty", None, False),
    ],
)
def test_what_is_judged(
    rule: str, pattern: str | None, text: str, ended: str, extracted: str | None, correct: bool
) -> None:
    found, verdict = grader(rule, pattern).grade(NUMBER, said(text, ended))
    assert (None if found is None else found.text) == extracted
    assert verdict.correct is correct


def test_letters_are_found_among_the_questions_own_options() -> None:
    one = Grader.of(QuestionSet((CHOICE,), (), "choice"), PromptConfig())
    for text, correct in (("B", True), ("two", True), ("A", False), ("one and two", False)):
        assert one.grade(CHOICE, said(text))[1].correct is correct


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    rows = [
        {"question": f"How many is {n} and 1?", "answer": f"It is <<{n}+1={n + 1}>>{n + 1}.\n#### {n + 1}"}
        for n in range(24)
    ]
    (folder / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mmlu.csv").write_text(
        "".join(f"Which is {n}?,a {n},b {n},c {n},d {n},{'ABCD'[n % 4]}\n" for n in range(24))
    )
    return folder


@pytest.mark.parametrize(("dataset", "file"), [("gsm8k", "gsm8k.jsonl"), ("mmlu", "mmlu.csv")])
def test_cells_count_what_was_not_found(
    random_model: tuple[str, ...], files: Path, tmp_path: Path, dataset: str, file: str
) -> None:
    result = probegrid.run(
        [
            *random_model,
            f"dataset={dataset}",
            f"dataset.path={files / file}",
            "prompt.num_few_shot=2",
            "decoding.max_new_tokens=8",
            "tracking=none",
            f"store_dir={tmp_path / 'store'}",
            f"results_dir={tmp_path / 'results'}",
        ]
    )
    answers = result.tables["answers"]
    missing = answers["extracted"].isna()
    assert result.metrics["n_not_extracted"] == missing.sum()
    assert result.metrics["extraction_share"] == pytest.approx(1 - missing.mean())
    assert not answers["correct"][missing].any()
    rule = find_rule({"gsm8k": "numeric", "mmlu": "choice"}[dataset])
    for row in answers[~missing].itertuples():
        assert row.correct == rule.judge(row.extracted, list(row.references)).correct
    assert isinstance(answers, pd.DataFrame)
    written = json.loads((result.folder / "result.json").read_text())
    assert answers["question"][0] in written["notes"]["examples"]


def test_rule_threshold_language_and_pattern_are_in_the_key(
    random_model: tuple[str, ...], files: Path, tmp_path: Path
) -> None:
    from probegrid.cell.prepare import prepare
    from probegrid.compose import compose_cell

    common = [
        *random_model,
        "dataset=gsm8k",
        f"dataset.path={files / 'gsm8k.jsonl'}",
        "prompt.num_few_shot=0",
    ]
    variants = [
        [],
        ["dataset.rule=squad"],
        ["dataset.rule=squad", "dataset.rule_threshold=0.7"],
        ["dataset.rule=squad", "dataset.language=de"],
        ["prompt.answer_pattern=(x)"],
    ]
    keys = [prepare(compose_cell([*common, *more])).key for more in variants]
    assert len(set(keys)) == len(keys)
    with pytest.raises(ConfigError, match="choice has no threshold"):
        prepare(compose_cell([*common, "dataset.rule=choice", "dataset.rule_threshold=1"]))
    with pytest.raises(ConfigError, match="is no regular expression"):
        prepare(compose_cell([*common, "prompt.answer_pattern='(x'"]))


def test_a_look_shows_the_first_rows_and_what_stands_out() -> None:
    asked = (
        Question("1", "Who? ", ("Ann", "Anna"), context="Ann it was."),
        Question("2", "Who? ", ("Ann", "Anna"), context="Ann it was."),
        Question("3", "What?", ("!!!",)),
        CHOICE,
    )
    hides = "2 questions have a context, which the prompt does not show: prompt.use_context=true"
    data = QuestionSet(asked, (), "squad", ("2 rows are left out",))
    assert any(note.startswith(hides) for note in look_at(data, PromptConfig()).notes)
    for shows in (PromptConfig(use_context=True), PromptConfig(template="{{ context }} {{ question }}")):
        assert not any("does not show" in note for note in look_at(data, shows).notes)
    look = look_at(data)
    said_of = " / ".join(look.lines())
    assert look.rows[0] == {"question": "Who? ", "references": ["Ann", "Anna"], "context": "Ann it was."}
    assert "'Who? ' -> 'Ann' | 'Anna'; context 'Ann it was.'" in said_of
    for expected in (
        "2 rows are left out",
        "2 texts begin or end with white space",
        "1 questions ask what an earlier one asks",
        "1 references are nothing once the rule 'squad' has normalized them ('!!!')",
    ):
        assert expected in said_of


@pytest.mark.parametrize("scores", ["letters", "texts"])
def test_options_are_scored_beside_the_answer(
    random_model: tuple[str, ...], files: Path, tmp_path: Path, scores: str
) -> None:
    result = probegrid.run(
        [
            *random_model,
            "dataset=mmlu",
            f"dataset.path={files / 'mmlu.csv'}",
            "prompt.num_few_shot=1",
            f"prompt.score_options={scores}",
            "tracking=none",
            f"store_dir={tmp_path / 'store'}",
            f"results_dir={tmp_path / 'results'}",
        ]
    )
    table = pd.read_parquet(result.folder / "options.parquet")
    letters = [list("ABCD")[int(row.logprobs.argmax())] for row in table.itertuples()]
    assert result.metrics["option_accuracy"] == pytest.approx((table["right"] == letters).mean())
    assert result.metrics["option_accuracy_ci_low"] <= result.metrics["option_accuracy"]
    assert ("letter_mass" in result.metrics) is (scores == "letters")
    if scores == "texts":
        longest = [
            max(range(4), key=lambda k, row=row: row.logprobs[k] / len(row.options[k]))
            for row in table.itertuples()
        ]
        assert result.metrics["option_accuracy_norm"] == pytest.approx(
            (table["right"] == ["ABCD"[k] for k in longest]).mean()
        )


def test_true_options_have_a_share_of_the_probability(random_model: tuple[str, ...], tmp_path: Path) -> None:
    rows = [
        {
            "question": f"Which {n}?",
            "mc1_targets": {f"right {n}": 1, f"wrong {n}": 0, f"false {n}": 0},
            "mc2_targets": {f"right {n}": 1, f"also right {n}": 1, f"wrong {n}": 0, f"false {n}": 0},
        }
        for n in range(12)
    ]
    (tmp_path / "mc_task.json").write_text(json.dumps(rows))
    result = probegrid.run(
        [
            *random_model,
            "dataset=truthful_qa",
            f"dataset.path={tmp_path / 'mc_task.json'}",
            "prompt.score_options=texts",
            "tracking=none",
            f"store_dir={tmp_path / 'store'}",
            f"results_dir={tmp_path / 'results'}",
        ]
    )
    table = pd.read_parquet(result.folder / "options.parquet")
    shares, hits = [], []
    for row in table.itertuples():
        odds = np.exp(row.logprobs)
        assert [text for text, true in zip(row.options, row.true, strict=True) if not true] == [
            text for text in row.options if "right" not in text
        ]
        assert len(row.options) == 4
        shares.append(odds[row.true].sum() / odds.sum())
        hits.append("ABC"[int(row.logprobs[:3].argmax())] == row.right)
    assert result.metrics["option_true_mass"] == pytest.approx(np.mean(shares))
    assert (
        result.metrics["option_true_mass_ci_low"]
        < np.mean(shares)
        < result.metrics["option_true_mass_ci_high"]
    )
    assert result.metrics["option_accuracy"] == pytest.approx(np.mean(hits))


def test_options_cannot_be_scored_where_there_are_none(random_model: tuple[str, ...], files: Path) -> None:
    from probegrid.cell.prepare import prepare
    from probegrid.compose import compose_cell

    words = [*random_model, "dataset=gsm8k", f"dataset.path={files / 'gsm8k.jsonl'}", "prompt.num_few_shot=0"]
    with pytest.raises(ConfigError, match=r"scores options, and question .* has none"):
        prepare(compose_cell([*words, "prompt.score_options=texts"]))
