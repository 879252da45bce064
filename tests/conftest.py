"""Small random checkpoints, and probegrid run in this process, as a command of its own, or from its wheel.

What is run as a command is a fork of a process that has imported all (`forked`), but for tests of a start itself.
Tests may be spread over processes (``make test`` does it), a file of tests at a time: what is costly to make and never
changed is made once for all of them (``once``), and files that wait for real services are started first.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import fork_server
import forked
import pytest
import workers
from filelock import FileLock
from forked import Forked
from hypothesis import settings
from workers import pytest_addoption, pytest_runtestloop  # noqa: F401  # hooks

import probegrid

if TYPE_CHECKING:
    from probegrid.cell.run import Result

# Before torch is imported, here and in the commands that tests run: two threads on a core that others use spin.
os.environ["OMP_NUM_THREADS"] = "1"
# A warning is an error in those commands too; pyproject.toml says it for this process. Messages are compared literally.
os.environ["PYTHONWARNINGS"] = ",".join(
    (
        "error",
        "ignore:The ``noload`` loader strategy:DeprecationWarning",  # MLflow's own tables, by SQLAlchemy 2.1
    )
)
settings.register_profile("probegrid", deadline=None)  # the first example pays for imports
settings.load_profile("probegrid")

VOCABULARY_CONTEXT = 2048
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": VOCABULARY_CONTEXT,
    "initializer_range": 0.25,
    "tie_word_embeddings": False,
}
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("LlamaConfig", {}),
    "qwen2": ("Qwen2Config", {"num_key_value_heads": 1}),
    "mistral": ("MistralConfig", {"num_key_value_heads": 4, "sliding_window": None}),
    "mistral_sliding": ("MistralConfig", {"sliding_window": 32}),
    "gemma2": ("Gemma2Config", {"head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0}),
}
"""By the names the tests use."""

SLOW = {
    "browser",
    "cluster",
    "command",
    "disk",
    "grid",
    "installed",
    "probegrid_command",
    "server",
    "start_python",
    "start_server",
    "wheel",
}
"""Fixtures that start whole programs: a test that asks for one is marked ``slow``."""
SERVICES = {"browser": "ui", "cluster": "slurm", "server": "server", "start_server": "server"}
"""Fixtures that start a real service, and how a test that asks for one is marked."""
FIRST = ("slurm", "ui", "server", "slow")
"""Marks whose files are started first, in this order, so that nothing long is left for the end."""

Checkpoints = Callable[[str], Path]
Once = Callable[[str, Callable[[Path], object]], Path]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures they ask for, and put the files first whose tests take long."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        marks = {SERVICES[name] for name in fixtures & SERVICES.keys()}
        for mark in marks | ({"slow"} if fixtures & SLOW else set()):
            item.add_marker(mark)
    ranks: dict[Path, int] = {}
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        rank = next((rank for rank, mark in enumerate(FIRST) if mark in marks), len(FIRST))
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
    items.sort(key=lambda item: ranks[item.path])  # stable: within a file, and among equals, as collected


def pytest_collection_finish(session: pytest.Session) -> None:
    """Where tests run: pass over what was imported whenever garbage is collected, and take signals as programs do."""
    if session.config.getoption("workers"):  # else each of them imports what its cells do
        fork_server.import_all((*fork_server.COMMON, *fork_server.HEAVY))
        fork_server.make_tables()
    fork_server.prepare_for_copies()
    # Started in the background or by nohup, this process ignores these, and what tests start would too.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Fill a folder once for all processes of a run: ``once("wheel", fill)``. No test may change it."""
    root = tmp_path_factory.getbasetemp()
    if workers.number() is not None or "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all processes' own folders

    def make_once(name: str, fill: Callable[[Path], object]) -> Path:
        folder, made = root / "once" / name, root / "once" / f"{name}.made"
        folder.parent.mkdir(exist_ok=True)
        with FileLock(folder.with_name(f"{name}.lock")):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a process that failed has left
                folder.mkdir()
                fill(folder)
                made.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def checkpoint(once: Once) -> Checkpoints:
    """The folder of a random float32 checkpoint by its name in ``FAMILIES``, made when it is first asked for."""

    def save(name: str) -> Path:
        return once(f"checkpoint-{name}", lambda folder: save_random_checkpoint(folder, *FAMILIES[name]))

    return functools.cache(save)


def save_random_checkpoint(folder: Path, config_class: str, changes: dict[str, object]) -> Path:
    """Save a model that says something else after every prompt, and often ends its answer early or at once."""
    import torch
    import transformers

    from probegrid.embedded import tokenizer

    vocabulary = tokenizer.build(VOCABULARY_CONTEXT)
    special = {f"{name}_token_id": getattr(vocabulary, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = getattr(transformers, config_class)(vocab_size=len(vocabulary), **SHAPE | special | changes)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # biases would all be 0, and norms all 1
                parameter.add_(torch.randn_like(parameter) * 0.3)
        newline = vocabulary.encode("\n", add_special_tokens=False)
        model.lm_head.weight[[*newline, vocabulary.eos_token_id]] *= 2.5
    model.save_pretrained(folder)
    tokenizer.save(vocabulary, folder)
    return folder


@pytest.fixture(scope="session")
def migrated(once: Once) -> Path:
    """A SQLite file with MLflow's tables, made once: the migrations take seconds."""

    def migrate(folder: Path) -> None:
        from probegrid.schema import TrackingConfig
        from probegrid.tracking.mlflow_session import open_experiment

        uri = f"sqlite:///{folder / 'mlflow.db'}"
        with open_experiment(TrackingConfig(uri=uri, experiment="made with the tables")):
            pass

    return once("migrated", migrate) / "mlflow.db"


@pytest.fixture(scope="session")
def wheel(once: Once) -> Path:
    """The wheel of this repository."""

    def build(folder: Path) -> None:
        how = ("--wheel", "--no-isolation", "--outdir", str(folder), str(Path(__file__).parents[1]))
        subprocess.run([sys.executable, "-m", "build", *how], check=True, capture_output=True, timeout=120)

    (file,) = once("wheel", build).glob("*.whl")
    return file


@pytest.fixture(scope="session")
def installed(wheel: Path, once: Once) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program of an environment that holds the wheel, from ``/``; dependencies are this environment's own.

    With ``start=forked.run`` it is forked from a process of that environment, which has imported what the wheel holds.
    """

    def install(folder: Path) -> None:
        venv.create(folder, with_pip=False)
        (site_packages,) = folder.glob("lib/python*/site-packages")
        # a path added by a .pth file has its own .pth files passed over: the editable install stays out of sight
        (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
        pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install"]
        how = ("--no-deps", "--no-index", str(wheel))
        subprocess.run([*pip, *how], check=True, capture_output=True, timeout=120)

    programs = once("environment", install) / "bin"
    forked.fork_programs_of(programs / "python")

    def run(
        program: str,
        *arguments: str,
        cwd: str | Path = "/",
        check: bool = True,
        start: Command = subprocess.run,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [programs / program, *arguments]
        return start(
            command, cwd=cwd, env=own | environment, capture_output=True, text=True, timeout=300, check=check
        )

    return run


@pytest.fixture
def start_python(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start Python code in a process of its own that sees the same packages, and has imported them; no network."""

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "HF_HUB_OFFLINE": "1",
        }
        return Forked(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in; no network."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


@pytest.fixture
def run(workdir: Path) -> Callable[..., Result]:
    """Run a cell in this process, untracked, in the empty folder."""
    return lambda *overrides: probegrid.run(["tracking=none", *overrides])


@pytest.fixture
def probegrid_command() -> Sequence[str]:
    """The console command that was installed beside this Python."""
    return [str(Path(sys.executable).with_name("probegrid"))]


@pytest.fixture
def command(workdir: Path, probegrid_command: Sequence[str]) -> Command:
    """Run ``probegrid`` untracked, as a command of its own, in the empty folder."""

    def run_command(*overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return forked.run(
            [*probegrid_command, "tracking=none", *overrides],
            cwd=workdir,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run_command
