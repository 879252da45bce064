"""Rules of correctness side by side, by worked values."""

from __future__ import annotations

import pytest

from probegrid.evaluation.correctness import Rule, token_f1
from probegrid.evaluation.sensitivity import contains, last_number, rouge_l, verdicts_by_rule


def test_the_worked_values() -> None:
    assert token_f1("The Eiffel Tower in Paris", "Eiffel Tower", Rule.SQUAD) == pytest.approx(2 / 3)
    assert rouge_l("The Eiffel Tower in Paris", ["Eiffel Tower"]) == pytest.approx(0.571429, abs=1e-6)
    assert last_number("So 3 + 4 = 7 apples.") == 7
    assert last_number("The total is $1,234.50.") == 1234.5
    assert last_number("#### -12") == -12
    assert last_number("none") is None


def test_each_rule_says_its_own() -> None:
    answers = ["Paris", "It is Paris, of course", "the river Seine", "", "Parisian"]
    found = verdicts_by_rule(answers, [["Paris"]] * 5)
    assert {name: right.tolist() for name, right in found.items()} == {
        "em": [True, False, False, False, False],
        "f1>=0.3": [True, True, False, False, False],
        "f1>=0.5": [True, False, False, False, False],
        "f1>=0.7": [True, False, False, False, False],
        "contains": [True, True, False, False, False],
        "rouge_l>0.3": [True, True, False, False, False],
        "rouge_l>0.5": [True, False, False, False, False],
    }


def test_numbers_are_compared_where_answers_are_numbers() -> None:
    found = verdicts_by_rule(["It is 8.0", "about 7", "1,000 men"], [["8"], ["#### 8"], ["1000"]])
    assert found["numeric"].tolist() == [True, False, True]
    assert "numeric" not in verdicts_by_rule(["8", "x", "y"], [["8"], ["x"], ["y"]])


def test_an_alias_of_nothing_is_contained_in_nothing() -> None:
    assert not contains("anything", ["the"])
    assert not contains("", ["Paris"])
    assert contains("I went to New York City", ["new york"])
