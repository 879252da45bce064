"""Rules of correctness side by side, by worked values."""

from __future__ import annotations

import pytest

from probegrid.evaluation.correctness import Rule, token_f1
from probegrid.evaluation.numbers import result_in
from probegrid.evaluation.rules import find_rule
from probegrid.evaluation.sensitivity import contains, verdicts_by_rule


def test_the_worked_values() -> None:
    assert token_f1("The Eiffel Tower in Paris", "Eiffel Tower", Rule.SQUAD) == pytest.approx(2 / 3)
    rouge = find_rule("rouge_l").judge("The Eiffel Tower in Paris", ["Eiffel Tower"])
    assert rouge.f1 == pytest.approx(0.571429, abs=1e-6)
    for text, number in {
        "So 3 + 4 = 7 apples.": 7,
        "The total is $1,234.50.": 1234.5,
        "#### -12": -12,
    }.items():
        found = result_in(text)
        assert found is not None and found[0].value == number
    assert result_in("none") is None


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
    squad = find_rule("squad").normalize
    assert not contains("anything", ["the"], squad)
    assert not contains("", ["Paris"], squad)
    assert contains("I went to New York City", ["new york"], squad)
    assert contains("", [], squad)


def test_each_rule_is_the_one_of_its_name() -> None:
    """As ``dataset.rule`` and ``dataset.rule_threshold`` would judge: in one table there are no two of one name."""
    answers = ["der Rhein", "In the Rhine", "Rhein und Main und Donau", "", "co-op", "8.00001", "a b c d e"]
    references = [
        ["Rhein"],
        ["the Rhine"],
        ["Rhein"],
        [],
        ["co op"],
        ["8"],
        ["a b c d e f g h i j k l m n o"],
    ]
    for language in (None, "de"):
        found = verdicts_by_rule(answers, references, language=language)
        for name, rule in {
            "em": find_rule("exact", language=language),
            "contains": find_rule("contains", language=language),
            **{
                f"f1>={least}": find_rule("squad", threshold=least, language=language)
                for least in (0.3, 0.5, 0.7)
            },
            **{
                f"rouge_l>{above}": find_rule("rouge_l", threshold=above, language=language)
                for above in (0.3, 0.5)
            },
        }.items():
            expected = [rule.judge(*pair).correct for pair in zip(answers, references, strict=True)]
            assert found[name].tolist() == expected, (name, language)
    assert verdicts_by_rule(answers, references, "trivia_qa")["em"][4]
    assert not verdicts_by_rule(answers, references)["em"][4]


def test_where_nothing_was_found_every_rule_says_wrong() -> None:
    found = verdicts_by_rule([None, "8"], [["8"], ["8"]])
    assert {name: right.tolist() for name, right in found.items()} == {name: [False, True] for name in found}
    assert "numeric" in found
    assert not any(right.any() for right in verdicts_by_rule([None], [[]]).values())
