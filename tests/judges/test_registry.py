"""What judges there are, what each says of itself, and how one of a user's own is found."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from probegrid.errors import ConfigError
from probegrid.inference.generation import Generation
from probegrid.judges import Evidence, Judge, Read, Rises, all_judges, judge
from probegrid.testing import check_judge

OWN = """
from probegrid.judges import Evidence, Read, Rises, judge
from probegrid.judges.greedy import gnll  # one that is only imported is none of its own

@judge(Read.greedy, rises=Rises.confidence)
def answer_length(evidence: Evidence) -> float:
    \"\"\"The number of characters of the greedy answer.\"\"\"
    return len(evidence.greedy.text)
"""


def evidence(text: str = "x") -> Evidence:
    return Evidence("q?", Generation((1,), (-0.5,), text, 1, 0.0, -0.5, "stop"))


def test_the_judges_that_people_ask_for_are_there() -> None:
    names = all_judges().keys()
    assert len(names) >= 45
    assert {
        "gnll",
        "perplexity",
        "mean_token_entropy",
        "semantic_entropy",
        "discrete_semantic_entropy",
    } <= names
    assert {"predictive_entropy", "length_normalized_entropy", "p_true", "lexical_similarity", "sar"} <= names
    assert {
        "num_semantic_sets",
        "deg_mat",
        "eig_val_laplacian",
        "agreement",
        "verbalized",
        "verbalized_top_k",
        "p_true_hint",
        "ccp",
        "rauq",
    } <= names


@pytest.mark.parametrize("name", all_judges())
def test_each_says_what_it_is_and_what_it_needs(name: str) -> None:
    one = all_judges()[name]
    assert one.name == name
    assert 10 < len(one.description) < 120
    assert not one.description.endswith(".")
    assert one.reads or one.asks
    assert one.source is None
    check_judge(one)


def test_the_contract_finds_what_is_wrong() -> None:
    def careless(evidence: Evidence) -> float:
        """Reads more than it says."""
        return float(len(evidence.samples))

    with pytest.raises(AssertionError, match="depends on what it did not declare"):
        check_judge(judge(Read.greedy)(careless))

    def constant(evidence: Evidence) -> float:
        """Always the same."""
        return 1.0

    with pytest.raises(AssertionError, match="scores all questions alike"):
        check_judge(judge(Read.greedy)(constant))


def test_one_of_ones_own_is_found_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_judge_module.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PROBEGRID_PLUGINS", "own_judge_module")
    found = all_judges()
    assert found.keys() - {"answer_length"} == all_judges().keys() - {"answer_length"}
    assert found["answer_length"].score(evidence("four")) == 4
    assert found["answer_length"].source is not None
    monkeypatch.delenv("PROBEGRID_PLUGINS")
    assert "answer_length" not in all_judges()


def test_two_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clashing_judge_module.py").write_text(OWN.replace("answer_length", "perplexity"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PROBEGRID_PLUGINS", "clashing_judge_module")
    with pytest.raises(ConfigError, match="two judges are called perplexity"):
        all_judges()


def test_an_infinite_score_is_refused_and_none_is_passed_on() -> None:
    def endless(evidence: Evidence) -> float:
        """As if it were."""
        return math.inf if evidence.greedy.text else math.nan

    one = judge(Read.greedy, rises=Rises.confidence)(endless)
    with pytest.raises(ConfigError, match="the judge endless gives inf for 'q\\?'"):
        one.score(evidence())
    assert math.isnan(one.score(evidence("")))


@pytest.mark.parametrize("given", [None, "high", [1.0], 10**400])
def test_what_is_no_number_is_refused(given: Any) -> None:
    def odd(evidence: Evidence) -> float:
        """No number."""
        return given  # type: ignore[no-any-return]

    with pytest.raises(
        ConfigError, match=r"the judge odd gives .* for 'q\?'; a score is a finite number, or nan"
    ):
        judge(Read.greedy)(odd).score(evidence())


def test_a_judge_without_a_docstring_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="needs a name of lower-case letters, digits and underscores, and a docstr"
    ):
        judge(Read.greedy)(lambda evidence: 0.0)


def test_scores_grow_with_confidence() -> None:
    sure, unsure = evidence(), Evidence("q?", Generation((1,), (-3.0,), "x", 1, 0.0, -3.0, "stop"))
    for name in ("gnll", "sequence_probability", "mean_nll", "perplexity", "max_token_nll"):
        one: Judge = all_judges()[name]
        assert one.score(sure) > one.score(unsure), name
