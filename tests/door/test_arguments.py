"""Flags may stand anywhere; what is no flag is said in one sentence."""

from __future__ import annotations

import itertools
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import probegrid as package
from probegrid.door.arguments import parse_arguments
from probegrid.errors import ConfigError

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    "words",
    list(itertools.permutations(["-m", "--config-dir=x", "model=tiny", "seed=0,1"])),
    ids=" ".join,
)
def test_flags_stand_anywhere(words: list[str]) -> None:
    found = parse_arguments(words)
    assert (found.multirun, found.config_dir) == (True, "x")
    assert found.overrides == [word for word in words if word in ("model=tiny", "seed=0,1")]


def test_a_folder_that_was_deleted(probegrid_command: Sequence[str], tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    command = ["sh", "-c", f"rmdir ../gone; exec {shlex.join(probegrid_command)}"]
    ended = subprocess.run(command, cwd=tmp_path / "gone", capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == (
        "probegrid: the folder that this command runs in was deleted; cd to another one.\n"
    )


def test_whoever_reads_it_may_have_seen_enough(probegrid_command: Sequence[str], workdir: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        ended = subprocess.run(
            [*probegrid_command, "--help"], stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 128 + signal.SIGPIPE
    assert ended.stderr == ""


def test_a_terminal_without_a_width(command: Command) -> None:
    ended = command("-m", "action=plan", "seed=0,1", COLUMNS="0")
    assert ended.returncode == 0
    assert "2 of 2 work" in ended.stdout


def test_a_grid_with_flags_between_its_overrides(command: Command, tmp_path: Any) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text(
        "defaults:\n  - /schema/dataset/facts@_here_\n  - _self_\nnum_samples: 7\nseed: ${seed}\n"
    )
    words = (
        "model=tiny",
        "-m",
        "seed=0,1",
        "--config-dir",
        str(tmp_path),
        "dataset=facts,mine",
        "action=plan",
    )
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 work" in done.stdout


def test_the_version(probegrid: Any) -> None:
    ended = probegrid("model=tiny", "--version")
    assert (ended.status, ended.out.strip(), ended.err) == (0, f"probegrid {package.__version__}", "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--vresion"], "--vresion is no flag; did you mean '--version'?"),
        (["seed=1", "--config-dir"], "expected one argument"),
        (["--cfg", "jbo"], "invalid choice: 'jbo'"),
        (["-m", "--cfg", "job"], "--multirun and --cfg exclude each other"),
        (["--resolve"], "--resolve goes with --cfg"),
        (["-p", "model"], "--package goes with --cfg"),
        (["--config-path", "x"], "add yours with --config-dir FOLDER"),
        (["--experimental-rerun", "x"], "the same command again"),
    ],
)
def test_a_wrong_flag_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_arguments(words)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("package", "printed"),
    [("seed", "0"), ("force", "false"), ("model.revision", "null"), ("quantization.method", "auto")],
)
def test_a_part_of_the_config_is_printed(probegrid: Any, package: str, printed: str) -> None:
    ended = probegrid("--cfg", "job", "-p", package)
    assert (ended.status, ended.out.strip(), ended.err) == (0, printed, "")


@pytest.mark.parametrize(
    ("package", "sentence"),
    [
        ("model.dtpye", "no key model.dtpye; did you mean 'dtype'?"),
        ("seed.a", "no key seed.a."),
        ("modl", "'model'"),
    ],
)
def test_a_part_that_is_not_there_is_one_sentence(probegrid: Any, package: str, sentence: str) -> None:
    ended = probegrid("--cfg", "job", "--package", package)
    assert ended.status == 2
    assert sentence in ended.sentence


def test_hydras_own_help_is_printed(probegrid: Any) -> None:
    ended = probegrid("--hydra-help")
    assert (ended.status, ended.err) == (0, "")
    assert "--shell-completion" in ended.out
