"""Clusters against semantic_uncertainty's loop over samples, and the pairs that are asked about."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from probegrid.judges.clustering import Pair, equal, mutual_entailment

WORDS = "abcdef"
RELATIONS = st.sets(st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS)))
QUESTIONS = st.lists(st.lists(st.sampled_from(WORDS), max_size=8), max_size=4)


class Oracle:
    """Entailment as a set of pairs; keeps what it was asked."""

    def __init__(self, relation: set[Pair]) -> None:
        self.relation = relation
        self.calls: list[list[Pair]] = []

    def __call__(self, pairs: Sequence[Pair]) -> list[bool]:
        self.calls.append(list(pairs))
        return [pair in self.relation for pair in pairs]


def one_by_one(texts: Sequence[str], relation: set[Pair]) -> list[int]:
    """``get_semantic_ids`` of semantic_uncertainty, with equal texts equivalent."""
    ids = [-1] * len(texts)
    following = 0
    for i, first in enumerate(texts):
        if ids[i] != -1:
            continue
        ids[i] = following
        for j in range(i + 1, len(texts)):
            mutual = {(first, texts[j]), (texts[j], first)} <= relation
            if ids[j] == -1 and (texts[j] == first or mutual):
                ids[j] = following
        following += 1
    return ids


@given(QUESTIONS, RELATIONS)
def test_clusters_are_those_of_the_loop_over_samples(questions: list[list[str]], relation: set[Pair]) -> None:
    found = mutual_entailment(questions, Oracle(relation))
    assert found == [one_by_one(texts, relation) for texts in questions]


@given(st.lists(st.sampled_from(WORDS), max_size=8), RELATIONS)
def test_no_pair_of_a_question_is_asked_twice_nor_of_equal_texts(
    texts: list[str], relation: set[Pair]
) -> None:
    oracle = Oracle(relation)
    mutual_entailment([texts], oracle)
    asked = [pair for call in oracle.calls for pair in call]
    assert len(asked) == len(set(asked))
    assert all(first != second for first, second in asked)


def test_entailment_in_one_direction_is_not_enough_and_the_first_member_decides() -> None:
    both = {("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")}
    assert mutual_entailment([["a", "b", "c"]], Oracle(both)) == [[0, 0, 1]]
    assert mutual_entailment([["a", "b"]], Oracle({("a", "b")})) == [[0, 1]]


def test_the_questions_are_asked_together() -> None:
    oracle = Oracle(set())
    mutual_entailment([["a", "b"], ["c", "d"], ["e"]], oracle)
    assert oracle.calls[0] == [("a", "b"), ("c", "d")]


def test_equal_texts_are_one_cluster() -> None:
    assert equal(["x", "y", "x", "", "y"]) == [0, 1, 0, 2, 1]
    assert equal([]) == []
