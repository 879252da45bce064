"""The embedded sets need no file, and refuse one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from probegrid.data import load
from probegrid.data.example import QuestionSet, StatementSet
from probegrid.data.facts import FactsConfig, Frequency
from probegrid.data.facts_statements import FactsStatementsConfig
from probegrid.data.ntml import SystemPrompt
from probegrid.embedded import world
from probegrid.errors import ConfigError

PRINT_FINGERPRINTS = """
from probegrid.data import load
from probegrid.data.facts import FactsConfig
from probegrid.data.facts_statements import FactsStatementsConfig
print(load(FactsConfig()).fingerprint, load(FactsStatementsConfig()).fingerprint)
"""


@pytest.mark.parametrize(
    "config",
    [FactsConfig(), FactsConfig(frequency=Frequency.rare), FactsStatementsConfig(num_samples=100)],
    ids=lambda config: f"{type(config).__name__}",
)
def test_contract_holds(check_dataset: Any, config: Any) -> None:
    check_dataset(config)


@pytest.mark.parametrize("config_class", [FactsConfig, FactsStatementsConfig])
def test_a_path_is_refused(config_class: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"is embedded and reads no path \(mine\.csv\); your own file is dataset="
    ):
        config_class(path="mine.csv")


def test_the_defaults_ask_for_no_more_than_there_is() -> None:
    assert load(FactsConfig()).notes == ()
    assert load(FactsStatementsConfig()).notes == ()


def test_every_process_draws_the_same() -> None:
    printed = {
        subprocess.run(
            [sys.executable, "-c", PRINT_FINGERPRINTS],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert printed == {
        f"{load(FactsConfig()).fingerprint} {load(FactsStatementsConfig()).fingerprint}\n".encode()
    }


def test_frequent_and_rare_facts_are_the_two_halves() -> None:
    rank = {fact.question: fact.rank for fact in world.facts()}
    asked = {}
    for frequency in Frequency:
        loaded = load(FactsConfig(num_samples=4000, frequency=frequency))
        assert isinstance(loaded, QuestionSet)
        asked[frequency] = [rank[question.text] for question in loaded.questions]
        assert loaded.shots == load(FactsConfig()).shots
    assert sorted(asked[Frequency.frequent] + asked[Frequency.rare]) == sorted(asked[Frequency.all])
    assert max(asked[Frequency.frequent]) < 2000 <= min(asked[Frequency.rare])


def test_the_questions_on_an_entity_are_a_group() -> None:
    loaded = load(FactsConfig(num_samples=3600))
    assert isinstance(loaded, QuestionSet)
    assert set(Counter(question.group for question in loaded.questions).values()) == {1, 2}
    assert all(question.group in question.text for question in loaded.questions)


def test_conversations_hold_three_truths_and_three_lies() -> None:
    loaded = load(FactsStatementsConfig())
    assert isinstance(loaded, StatementSet)
    for conversation in loaded.conversations:
        assert Counter(statement.label for statement in conversation.statements) == {True: 3, False: 3}


def test_the_system_prompt_is_dropped_unless_it_is_kept_and_marked() -> None:
    dropped, kept = (
        load(FactsStatementsConfig()),
        load(FactsStatementsConfig(system_prompt=SystemPrompt.keep)),
    )
    assert isinstance(dropped, StatementSet)
    assert isinstance(kept, StatementSet)
    assert [len(conversation.messages) for conversation in dropped.conversations[:2]] == [1, 1]
    assert dropped.leaks == ()
    assert "lie on statement(s)" in kept.conversations[0].messages[0].content
    assert "which statements are lies" in kept.leaks[0]
