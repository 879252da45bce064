"""The invented world: the same everywhere, and with no truth to be read off the words alone."""

import os
import re
import subprocess
import sys
from collections import Counter
from random import Random
from statistics import mean

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from probegrid.embedded import world

DIGEST = """
import sys
from hashlib import sha256
from probegrid.embedded import world
told = (world.facts(), world.words(), world.statements(3), world.conversation("c", world.statements(3)[:6]))
print(sha256(repr(told).encode()).hexdigest(), "torch" in sys.modules or "numpy" in sys.modules)
"""


def digest(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", DIGEST]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def answers_of(fact: world.Fact) -> tuple[str, ...]:
    return world.relations()[fact.relation].answers


def test_is_the_same_whatever_the_hash_seed_and_needs_the_standard_library_only() -> None:
    first, second = digest("1"), digest("2")
    assert first == second
    assert first.split()[1] == "False"


def test_facts_are_distinct_and_answerable() -> None:
    facts = world.facts()
    assert len(facts) == 4000
    assert [fact.id for fact in facts] == list(range(4000))
    assert sorted(fact.rank for fact in facts) == list(range(4000))
    assert len({(fact.entity, fact.relation) for fact in facts}) == 4000
    for fact in facts:
        assert fact.answer in answers_of(fact)
        assert fact.entity in fact.question


def test_every_relation_has_about_sixty_answers_that_no_other_relation_has() -> None:
    answers = [answer for relation in world.relations().values() for answer in relation.answers]
    assert len(set(answers)) == len(answers)
    assert all(60 <= len(relation.answers) <= 64 for relation in world.relations().values())


def test_lower_ranks_are_met_more_often() -> None:
    by_rank = sorted(world.facts(), key=lambda fact: fact.rank)
    weights = [fact.weight for fact in by_rank]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 20 * weights[-1] > 0


def test_few_shot_examples_are_never_asked_about() -> None:
    shots, asked = set(world.shot_facts()), set(world.question_facts())
    assert not shots & asked
    assert shots | asked == set(world.facts())
    assert 1900 < mean(fact.rank for fact in shots) < 2100


def test_a_false_statement_gives_an_answer_of_the_same_kind() -> None:
    rng = Random(0)
    for fact in world.facts()[:300]:
        texts = {fact.statement(answer): answer == fact.answer for answer in answers_of(fact)}
        for is_true in (True, False):
            statement = world.state(fact, is_true, rng)
            assert statement.is_true is texts[statement.text] is is_true


def test_statements_are_balanced_and_say_what_they_claim() -> None:
    statements = world.statements(0)
    assert len(statements) > 1000
    assert len(statements) % 6 == 0
    for start in range(0, len(statements), 6):
        assert sum(statement.is_true for statement in statements[start : start + 6]) == 3
    for statement in statements:
        assert (statement.text == statement.fact.statement(statement.fact.answer)) == statement.is_true
        assert statement.text.endswith(".")
        assert statement.fact.rank < 2000


def test_no_entity_has_two_statements() -> None:
    entities = [statement.fact.entity for statement in world.statements(0)]
    assert len(set(entities)) == len(entities)


def test_every_answer_is_given_once_for_each_fact_it_is_right_for() -> None:
    statements = world.statements(0)
    given = Counter(statement.text.split()[-1].rstrip(".") for statement in statements)
    assert given == Counter(statement.fact.answer for statement in statements)


def test_the_seed_decides_which_statements_are_true() -> None:
    assert world.statements(1) == world.statements(1)
    assert world.statements(1) != world.statements(2)


def test_words_alone_do_not_tell_true_from_false() -> None:
    aurocs = []
    for seed in range(4):
        statements = world.statements(seed)
        texts = TfidfVectorizer(ngram_range=(1, 2)).fit_transform(
            [statement.text for statement in statements]
        )
        truths = [statement.is_true for statement in statements]
        half = len(truths) // 2
        model = LogisticRegression().fit(texts[:half], truths[:half])
        aurocs.append(roc_auc_score(truths[half:], model.decision_function(texts[half:])))
    assert max(aurocs) < 0.58
    assert mean(aurocs) == pytest.approx(0.5, abs=0.04)


def test_a_conversation_marks_where_its_statements_stand() -> None:
    statements = world.statements(5)[:6]
    conversation = world.conversation("five", statements)
    system, assistant = conversation["messages"]
    labels = conversation["labels"]
    assert conversation["id"] == "five"
    assert (system["role"], assistant["role"]) == ("system", "assistant")
    assert assistant["content"].splitlines() == [f"{i}. {s.text}" for i, s in enumerate(statements, start=1)]
    for statement, label in zip(statements, labels["statement_level"], strict=True):
        assert (
            assistant["content"][label["char_start"] : label["char_end"]] == statement.text == label["text"]
        )
        assert label["is_true"] == statement.is_true
        assert label["statement_id"] == statement.fact.id
    assert [label["position"] for label in labels["statement_level"]] == list(range(6))
    assert labels["ratio"] == "3T3L"
    assert labels["ground_truth"] == [statement.is_true for statement in statements]


def test_the_system_prompt_announces_the_lies() -> None:
    conversation = world.conversation("five", world.statements(5)[:6])
    lies = conversation["labels"]["lie_positions"]
    announced = conversation["messages"][0]["content"].split("statement(s)")[1]
    assert [int(number) for number in re.findall(r"\d+", announced)] == lies
    assert [i for i, true in enumerate(conversation["labels"]["ground_truth"], start=1) if not true] == lies


def test_a_conversation_without_lies_announces_none() -> None:
    prompt = world.system_prompt([True, True])
    assert "2 truths and 0 lies" in prompt
    assert "will lie" not in prompt
