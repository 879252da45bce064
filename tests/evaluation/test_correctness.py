"""Correctness by the official rules: hard normalization cases, and the official SQuAD scorer's figures."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from probegrid.evaluation.correctness import (
    Judgement,
    Rule,
    exact_match,
    judge,
    judge_all,
    normalize,
    token_f1,
)


@pytest.mark.parametrize(
    ("text", "squad", "trivia_qa"),
    [
        ("The Beatles", "beatles", "beatles"),
        ("co-op", "coop", "co op"),
        ("O'Neill", "oneill", "o neill"),
        ("O\u2019Neill", "o\u2019neill", "o neill"),
        ("\u2018Heroes\u2019", "\u2018heroes\u2019", "heroes"),
        ("caf\u00b4e `x`", "caf\u00b4e x", "caf e x"),
        ("snake_case_name", "snakecasename", "snake case name"),
        ("A.C. Milan", "ac milan", "c milan"),
        ("24\u201310", "24\u201310", "24\u201310"),
        ("$1,000.50", "100050", "1 000 50"),
        ("an apple a day the end", "apple day end", "apple day end"),
        ("theatre another", "theatre another", "theatre another"),
        ("the-a-an", "theaan", ""),
        ("  many \t\n spaces\u00a0here ", "many spaces here", "many spaces here"),
        ("\u00c9COLE", "\u00e9cole", "\u00e9cole"),
        ("!?!", "", ""),
        ("The", "", ""),
        ("", "", ""),
    ],
)
def test_the_two_normalizations(text: str, squad: str, trivia_qa: str) -> None:
    assert normalize(text, Rule.SQUAD) == squad
    assert normalize(text, Rule.TRIVIA_QA) == trivia_qa


def test_the_rules_disagree_on_hyphens_and_quotes() -> None:
    assert exact_match("co-op", "coop", Rule.SQUAD) == 1.0
    assert exact_match("co-op", "coop", Rule.TRIVIA_QA) == 0.0
    assert exact_match("rock \u2019n\u2019 roll", "rock n roll", Rule.SQUAD) == 0.0
    assert exact_match("rock \u2019n\u2019 roll", "rock n roll", Rule.TRIVIA_QA) == 1.0


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("the Denver Broncos", "Denver Broncos", 1.0),
        ("Denver", "Denver Broncos", 2 / 3),
        ("Denver Denver", "Denver Broncos", 0.5),
        ("Denver", "Denver Broncos of Colorado", 0.4),
        ("Panthers", "Denver Broncos", 0.0),
        ("", "Denver Broncos", 0.0),
        ("the", "a", 1.0),
    ],
)
def test_token_f1_counts_repeated_words_once_a_match(answer: str, reference: str, expected: float) -> None:
    assert token_f1(answer, reference, Rule.SQUAD) == pytest.approx(expected, abs=1e-15)


def test_f1_of_one_half_is_correct_by_the_squad_rule_only() -> None:
    """One word of a reference of three: precision 1, recall 1/3, F1 exactly one half."""
    assert judge("Broncos", ["Denver Broncos team"], Rule.SQUAD) == Judgement(em=0.0, f1=0.5, correct=True)
    assert judge("Broncos", ["Denver Broncos team"], Rule.TRIVIA_QA) == Judgement(
        em=0.0, f1=0.5, correct=False
    )


def test_the_best_reference_counts() -> None:
    assert judge("Levi's Stadium", ["Santa Clara", "the Levis stadium"], Rule.SQUAD) == Judgement(
        1.0, 1.0, True
    )
    assert judge("gagarin", ["Yuri Gagarin", "Gagarin"], Rule.TRIVIA_QA).correct


def test_an_alias_that_normalizes_to_nothing_matches_nothing() -> None:
    assert judge("", ["!!!", "Chk Chk Chk"], Rule.TRIVIA_QA) == Judgement(0.0, 0.0, False)
    assert judge("the", ["!!!"], Rule.TRIVIA_QA) == Judgement(0.0, 0.0, False)
    assert judge("chk chk chk", ["!!!", "Chk Chk Chk"], Rule.TRIVIA_QA).correct
    assert not judge("", ["the", "Band"], Rule.SQUAD).correct


@pytest.mark.parametrize("references", [[], ["the"], ["?", ""]])
def test_an_unanswerable_squad_question_wants_an_empty_answer(references: list[str]) -> None:
    assert judge("", references, Rule.SQUAD) == Judgement(1.0, 1.0, True)
    assert judge("The.", references, Rule.SQUAD) == Judgement(1.0, 1.0, True)
    assert judge("no answer", references, Rule.SQUAD) == Judgement(0.0, 0.0, False)


def test_missing_answers_are_wrong_and_reported() -> None:
    answers = {"q1": "Denver Broncos", "q3": "Levi", "stray": "?"}
    references = {"q1": ["Denver Broncos"], "q2": ["Carolina"], "q3": ["Levi's Stadium"], "q4": []}
    scored = judge_all(answers, references, Rule.SQUAD)
    assert list(scored.judgements) == ["q1", "q2", "q3", "q4"]
    assert scored.missing == ("q2", "q4")
    assert scored.unknown == ("stray",)
    assert scored.exact_match == 0.25
    assert scored.accuracy == 0.25
    assert "2 of 4 questions have no answer and count as wrong (q2, q4)" in scored.report()
    assert "1 answers belong to no question" in scored.report()


def test_a_complete_set_reports_nothing_and_an_empty_one_has_no_mean() -> None:
    assert judge_all({"q": "a b"}, {"q": ["b"]}, Rule.SQUAD).report() == ""
    empty = judge_all({}, {}, Rule.SQUAD)
    assert all(math.isnan(mean) for mean in (empty.exact_match, empty.f1, empty.accuracy))


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("PROBEGRID_DATA")
    if not folder:
        pytest.skip("PROBEGRID_DATA does not name the folder of real data")
    return Path(folder)


def _squad_references(path: Path) -> dict[str, list[str]]:
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    return {
        question["id"]: [answer["text"] for answer in question["answers"]]
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    }


def test_the_official_squad_figures_to_four_decimals(real_data: Path) -> None:
    references = _squad_references(real_data / "squad/dev-v1.1-super-bowl-50.json")
    answers = json.loads((real_data / "squad/predictions-super-bowl-50.json").read_text(encoding="utf-8"))
    scored = judge_all(answers, references, Rule.SQUAD)
    assert len(references) == 810
    assert scored.report() == ""
    assert round(100 * scored.exact_match, 4) == 89.7531
    assert round(100 * scored.f1, 4) == 92.4703
    assert round(100 * scored.accuracy, 4) == 93.7037


def test_the_official_trivia_qa_aliases(real_data: Path) -> None:
    """Every alias of a real question answers it, and normalizes to one the release itself lists."""
    record = json.loads((real_data / "trivia_qa/triviaqa_official_sample.json").read_text(encoding="utf-8"))
    answers = [question["Answer"] for question in record["Data"]] if "Data" in record else [record["Answer"]]
    for answer in answers:
        ours = {normalize(alias, Rule.TRIVIA_QA) for alias in answer["Aliases"]} - {""}
        assert ours <= set(answer["NormalizedAliases"])
        assert all(judge(alias, answer["Aliases"], Rule.TRIVIA_QA).correct for alias in answer["Aliases"])
