"""Shell completion offers names as they are typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Complete = Callable[[str], list[str]]


@pytest.fixture
def complete(probegrid: Any, monkeypatch: pytest.MonkeyPatch) -> Complete:
    def run(line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        ended = probegrid("-sc", "query=bash")
        assert (ended.status, ended.err) == (0, "")
        return list(ended.out.split())

    return run


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("probegrid action=", ["cancel", "plan", "report", "run", "score", "status", "sync", "verify"]),
        ("probegrid action=s", ["score", "status", "sync"]),
        ("probegrid model.dtype=", ["bfloat16", "float16", "float32"]),
        ("probegrid model=qwen7", ["qwen72b", "qwen7b"]),
        ("probegrid model=tiny -m dataset=fa", ["facts", "facts_rare", "facts_statements"]),
        ("probegrid seed=", ["0"]),
        ("probegrid hydra/launcher=", ["local", "slurm", "slurm_2xh100", "slurm_4x11gb"]),
    ],
)
def test_values_are_offered(complete: Complete, line: str, offered: list[str]) -> None:
    key = line.rsplit(maxsplit=1)[-1].partition("=")[0]
    assert complete(line) == [f"{key}={value}" for value in offered]


def test_keys_are_offered_and_no_internal_groups(complete: Complete) -> None:
    assert {"action=", "model=", "model.", "seed=", "experiment="} <= set(complete("probegrid "))
    assert not [word for word in complete("probegrid ") if word.startswith("schema")]
    assert complete("probegrid probe=logistic probe.la") == ["probe.layers="]


def test_the_users_own_choices_are_offered(complete: Complete, own: Any) -> None:
    own("model", "mine", {"path": "/x"})
    assert complete("probegrid --config-dir groups model=mi") == [
        "model=mine",
        "model=mistral7b",
        "model=mistral_large",
        "model=mistral_nemo",
        "model=mistral_small",
        "model=mixtral8x7b",
    ]


@pytest.mark.parametrize(
    "line", ["probegrid --config", "probegrid model=nope dat", "probegrid model=tiny --cfg"]
)
def test_what_is_wrong_so_far_prints_no_error(complete: Complete, line: str) -> None:
    assert set(complete(line)) <= {"dataset="}


def test_a_shell_that_is_not_known(probegrid: Any) -> None:
    ended = probegrid("-sc", "install=bsh")
    assert ended.status == 2
    assert "write -sc install=bash" in ended.sentence


def test_a_question_without_a_line_is_a_shells(probegrid: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMP_LINE", raising=False)
    ended = probegrid("-sc", "query=bash")
    assert ended.status == 2
    assert "is for shells to ask" in ended.sentence
