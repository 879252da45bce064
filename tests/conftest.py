"""Small random checkpoints, and probegrid run in this process, as a command of its own, or from its wheel."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

import probegrid
from probegrid.cell.run import Result

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, here and in the commands the tests run
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
"""By the names the tests use: the first three can share a prefix, the others cannot."""

Checkpoints = Callable[[str], Path]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """The folder of a random float32 checkpoint by its name in ``FAMILIES``, made when it is first asked for.

    No test may change it.
    """
    root = tmp_path_factory.mktemp("checkpoints")
    return functools.cache(lambda name: save_random_checkpoint(root / name, *FAMILIES[name]))


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
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables, made once: the migrations take seconds."""
    from probegrid.schema import TrackingConfig
    from probegrid.tracking.mlflow_session import open_experiment

    path = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    with open_experiment(TrackingConfig(uri=f"sqlite:///{path}", experiment="made with the tables")):
        return path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(Path(__file__).parents[1]),
    ]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="session")
def installed(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program of an environment that holds the wheel, from ``/``; dependencies are this environment's own."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # a path added by a .pth file has its own .pth files passed over: the editable install stays out of sight
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True, timeout=120)

    def run(
        program: str, *arguments: str, cwd: str | Path = "/", check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [folder / "bin" / program, *arguments]
        return subprocess.run(
            command, cwd=cwd, env=own | environment, capture_output=True, text=True, timeout=300, check=check
        )

    return run


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
        return subprocess.run(
            [*probegrid_command, "tracking=none", *overrides],
            cwd=workdir,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run_command
