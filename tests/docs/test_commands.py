"""Every command of every page is run: as a plan where it would read a model, over stand-ins of the files it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import forked
import pages
import pytest
from classifiers import save_classifier
from hydra.core.plugins import Plugins
from in_process import run_main

import probegrid
from probegrid import compose
from probegrid.door import keys
from probegrid.schema import Action

pytestmark = pytest.mark.slow

ROOT = pages.ROOT
TYPED = {one.line: one for one in pages.commands() if one.page != "own_parts.md"}
"""By line; what ``own_parts.md`` types ``tests/test_own_parts.py`` runs, with the page's own parts."""
OURS = [one for one in TYPED.values() if one.words[:1] == ["probegrid"]]
PROBEGRID = [*{tuple(one.words): one for one in sorted(OURS, key=lambda one: bool(one.printed))}.values()]
"""Once where pages repeat it, and with what it prints where one of them shows that."""
OTHERS = [line for line, one in TYPED.items() if one.words[:1] != ["probegrid"]]
MACHINE = ("device_map.gpus=8", "device_map.gpu=H100", "device_map.cpu_memory_gb=1000")
"""What a reader has whose command names no hardware."""
PRINTED = [one for one in OURS if one.printed and "action=plan" in one.words]
THEIRS = {"model.load_model_args.device_map", "probe.save_json"}
"""What other tools call so (``coming_from.md``)."""
ASK = ("--help", "--version", "--cfg")
SETUP = ("git clone", "cd ", "source ", "export ", "umask ", "cat ", "hf auth login", "hf download")
"""What is a shell's or the hub's own, and nothing of ours."""

QUESTIONS = [
    {
        "question": f"Who wrote book {n}?",
        "answers": {"text": [f"Author {n}"], "answer_start": [0]},
        "id": str(n),
        "context": f"Author {n} wrote book {n}.",
    }
    for n in range(60)
]


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[[str], Path], migrated: Path
) -> Path:
    """A folder as a reader's might be: files of the names that pages use, a checkpoint, recorded cells, a sweep."""
    place = tmp_path_factory.mktemp("reader")
    shutil.copy(migrated, place / "mlflow.db")
    _write_data(place)
    for name in ("models/mine", "Qwen/Qwen3-8B"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).symlink_to(ROOT / "src/probegrid/embedded/tiny")
    (place / "models/random").symlink_to(checkpoint("llama"))
    save_classifier(place / "microsoft/deberta-v2-xlarge-mnli")
    save_classifier(place / "cross-encoder/stsb-roberta-large", "roberta", {0: "similar"})
    for block in pages.blocks("yaml"):
        if named := re.match(r"# (FOLDER/\S+\.yaml)\n", block.text):
            (place / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (place / named[1]).write_text(block.text.replace("/models/mine", str(place / "models/mine")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(subprocess, "Popen", forked.Forked)  # a sweep's jobs
        few = ["tracking=none", "dataset.num_samples=8"]
        for cell in (
            ["dataset=facts_rare"],
            ["model=models/random"],
            ["probe=semantic_entropy"],
        ):
            probegrid.run([*few, *cell])
        probegrid.run(
            [
                "tracking=none",
                "dataset=facts_statements",
                "probe=logistic",
                "probe.layers=[2]",
                "dataset.num_samples=120",
            ]
        )
        probegrid.sweep([*few, "quantization=none,nf4"])
    return place


def _write_data(place: Path) -> None:
    """The data files that pages name, in the schemas of their publishers."""
    import json

    lines = "".join(json.dumps(row) + "\n" for row in QUESTIONS)
    (place / "mine.jsonl").write_text(lines)
    (place / "mine.jinja").write_text("Q: {{ question }}\nA:")
    article = [
        {
            "context": row["context"],
            "qas": [
                {
                    "id": row["id"],
                    "question": row["question"],
                    "answers": [{"text": f"Author {n}", "answer_start": 0}],
                }
            ],
        }
        for n, row in enumerate(QUESTIONS)
    ]
    (place / "dev-v1.1.json").write_text(
        json.dumps({"version": "1.1", "data": [{"title": "Books", "paragraphs": article}]})
    )
    cities = "".join(f"The city of Town {n // 2} is in Land {n % 7}.,{n % 2}\n" for n in range(200))
    (place / "cities.csv").write_text("statement,label\n" + cities)
    (place / "neg_cities.csv").write_text("statement,label\n" + cities.replace(" is in ", " is not in "))
    (place / "new.jsonl").write_text(
        "".join(json.dumps({"statement": f"Fact {n} holds."}) + "\n" for n in range(5))
    )
    talks = []
    for number in range(12):
        lines = [f"{row + 1}. Thing {number * 6 + row} is made of wood." for row in range(6)]
        said, labels = "\n".join(lines), []
        for row, line in enumerate(lines):
            start = said.index(line) + len("1. ")
            span = {"char_start": start, "char_end": start + len(line) - len("1. ")}
            labels.append(
                {
                    "text": line[len("1. ") :],
                    "is_true": row > 2,
                    "position": row,
                    "source": "things",
                    "statement_id": row,
                }
                | span
            )
        roles = [("system", "You will lie on statement(s) 1, 2, 3."), ("assistant", said)]
        messages = [{"role": role, "content": content} for role, content in roles]
        talks.append(
            {
                "id": f"3T3L_{number:03}",
                "messages": messages,
                "labels": {"ratio": "3T3L", "statement_level": labels},
            }
        )
    (place / "3T3L_500samples.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    (shown,) = (block.text for block in pages.blocks("console") if block.text.startswith("$ cat mine.csv"))
    (place / "mine.csv").write_text(shown.partition("\n")[2].partition("$ ")[0])


def _typed(command: pages.Command, folder: Path) -> list[str]:
    """The words of a command, run as a plan where it would read a model."""
    (trained,) = {file.parent.name for file in folder.glob("results/*/probe.safetensors")}
    words = [word.replace("<key>", trained) for word in command.words[1:]]
    if any(word in ASK for word in words):
        return words
    if not any(word.startswith("action=") for word in words):
        words = ["action=plan", *words]
    return words if _is_placed(words) else [*words, *MACHINE]


def _is_placed(words: Sequence[str]) -> bool:
    """Whether nothing is planned, or on hardware that is named."""
    return "action=plan" not in words or any(word.startswith("device_map") for word in words)


def _expected(command: pages.Command) -> int:
    """The status of a command, by what its page shows below it."""
    return 2 if any(line.startswith("probegrid: ") for line in command.printed) else 0


@pytest.fixture
def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[Sequence[str]], tuple[int, str]]:
    """Run ``probegrid`` in the reader's folder: its status, and what it prints."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def run_command(words: Sequence[str]) -> tuple[int, str]:
        status, out, err = run_main(words, monkeypatch, capfd)
        return status, out + err

    return run_command


@pytest.mark.parametrize(
    "command",
    [
        one for one in PROBEGRID if one not in PRINTED or not _is_placed(one.words)
    ],  # others run below as they are
    ids=lambda one: f"{one.page}: {one.line[:60]}",
)
def test_every_command_is_taken(
    command: pages.Command, folder: Path, run: Callable[[Sequence[str]], tuple[int, str]]
) -> None:
    status, said = run(_typed(command, folder))
    assert status == _expected(command), f"{command.page}: {command.line}\n{said}"


@pytest.mark.parametrize("command", PRINTED, ids=lambda one: f"{one.page}: {one.line[:60]}")
def test_a_plan_prints_what_its_page_shows(
    command: pages.Command, run: Callable[[Sequence[str]], tuple[int, str]]
) -> None:
    status, said = run(command.words[1:])
    assert status == _expected(command), f"{command.page}: {command.line}\n{said}"
    shown = "\n".join(command.printed).partition("\n...")[0]
    assert said.rstrip().startswith(shown), f"{command.page}: {command.line}\n{said}"


@pytest.mark.parametrize("line", OTHERS)
def test_every_other_command_is_there(line: str) -> None:
    """A target of make, a script with the options that are typed, a program's own: all are known here."""
    if line.startswith(SETUP):
        return
    words = TYPED[line].words
    if words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    else:
        assert words[0] in ("mlflow", "python"), f"{TYPED[line].page}: nothing here runs {line!r}"
        program = ("-m", "mlflow") if words[0] == "mlflow" else ()
        helped = forked.run(
            [sys.executable, *program, words[1], "--help"],
            cwd=ROOT,
            env=os.environ
            | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": ""},  # MLflow's own are not ours to mend
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert not [word for word in words if word.startswith("--") and word not in helped]


def test_what_python_shows_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(subprocess, "Popen", forked.Forked)  # a sweep's jobs
    few = ("tracking=none", "dataset.num_samples=8")
    monkeypatch.setattr(probegrid, "run", lambda words, run=probegrid.run: run([*words, *few]))
    monkeypatch.setattr(probegrid, "sweep", lambda words, sweep=probegrid.sweep: sweep([*words, *few]))
    (shown,) = (block.text for block in pages.blocks("python") if block.page == "start.md")
    exec(compile(shown, "start.md", "exec"), {})


def test_every_key_that_a_page_names_is_one() -> None:
    """In the text and in tables too: `dataset.rule`, `'probe.layers=[22]'`."""
    compose.register()
    Plugins.instance()  # launchers have keys too
    prefixes = "|".join((*keys.GROUPS, "report", "status", "hydra.launcher"))
    named = {
        (page.name, found)
        for page in pages.pages()
        if page.name != "own_parts.md"
        for span in re.findall(
            r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
        )
        for found in re.findall(
            rf"(?<![\w/.$({{-])((?:{prefixes})\.[a-z_]+(?:\.[a-z_]+)*)(?=[=\s`'\],]|$)", span
        )
    }
    mistyped = {
        (page, key)
        for page, key in named
        if not keys.is_known(key.replace("probe.from", "probe.from_cell"))
        and not keys.is_of_mapping(key)
        and not _is_file(key)
    }
    assert len(named) > 60
    assert {key for _, key in mistyped} == THEIRS


def _is_file(key: str) -> bool:
    """``probe.safetensors``, ``probe.json``: files, not keys."""
    return key.endswith((".safetensors", ".json"))


def test_actions_of_pages_are_all_there_are() -> None:
    shown = {word.partition("=")[2] for one in PROBEGRID for word in one.words if word.startswith("action=")}
    assert shown == {action.name for action in Action} - {"run"}
