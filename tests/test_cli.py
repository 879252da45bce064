"""The command: exit statuses, one sentence for a mistake, and nothing left half written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import torch
import transformers  # noqa: F401  # whose log goes to the stderr that is there when it is imported
from in_process import run_main
from safetensors.torch import load_file, save_file

from probegrid.actions import act
from probegrid.compose import compose_cell
from probegrid.errors import ProbegridError
from probegrid.models import libraries

pytestmark = pytest.mark.slow  # cells of real models, or composed one by one

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Invoke = Callable[..., tuple[int, str]]


@pytest.fixture
def model(checkpoint: Callable[[str], Path]) -> tuple[str, ...]:
    return custom(checkpoint("llama"))


@pytest.fixture
def copied(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    return Path(shutil.copytree(checkpoint("llama"), tmp_path / "copied"))


@pytest.fixture
def invoke(workdir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Invoke:
    """Run the command's own ``main`` in this process: (exit status, what it wrote to stdout, then to stderr)."""

    def invoke_main(*overrides: str) -> tuple[int, str]:
        small = ("dataset.num_samples=3", "decoding.max_new_tokens=4")
        status, out, err = run_main(("tracking=none", *small, *overrides), monkeypatch, capfd)
        return status, out + err

    return invoke_main


def custom(folder: Path | str) -> tuple[str, ...]:
    return ("model=custom", f"model.path={folder}", "model.dtype=float32")


def sentence(stderr: str) -> str:
    """The last line, which must be the sentence; no traceback before it."""
    assert "Traceback" not in stderr
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("probegrid: ")
    return last


def recorded(folder: Path) -> list[Path]:
    return list((folder / "results").glob("**/*"))


def write_questions(folder: Path, rows: int, **columns: object) -> None:
    lines = [json.dumps({name: f"{value} {row}" for name, value in columns.items()}) for row in range(rows)]
    (folder / "questions.jsonl").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("model=llama80b",), "did you mean 'llama8b'?"),
        (("experiment=smok",), "did you mean 'smoke'?"),
        (("model.dtpye=float32",), "did you mean 'dtype'?"),
        (("model.dtype=float31",), "did you mean 'float32'?"),
        (("dataset.num_samples=0",), "dataset.num_samples=0 asks for no example"),
        (("dataset=jsonl", "dataset.path=question.jsonl"), "did you mean 'questions.jsonl'?"),
        (("dataset=jsonl", "dataset.path=questions.jsonl", "dataset.answers_column=answer"), "answer"),
        (("dataset=jsonl", "dataset.path=empty.jsonl"), "empty.jsonl"),
        (custom("folder"), "folder is not a checkpoint"),
        (custom("no_such_folder"), "no_such_folder is neither a folder that exists nor a hub id"),
        (custom("owner/name"), "owner/name is not in the local cache and HF_HUB_OFFLINE is set"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_sentence_and_status_2(
    command: Command, workdir: Path, model: tuple[str, ...], overrides: tuple[str, ...], words: str
) -> None:
    (workdir / "folder").mkdir()
    (workdir / "empty.jsonl").touch()
    write_questions(workdir, 10, question="Who is", answers="me")
    done = command(*(() if overrides[0].startswith("model=") else model), *overrides)
    assert done.returncode == 2
    assert words in sentence(done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert not recorded(workdir)


@pytest.mark.parametrize(
    ("overrides", "environment"), [(["debug=true"], {}), ([], {"HYDRA_FULL_ERROR": "1"})]
)
def test_a_traceback_is_shown_when_it_is_asked_for(
    command: Command, overrides: list[str], environment: dict[str, str]
) -> None:
    done = command("dataset.num_samples=0", *overrides, **environment)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("probegrid: dataset.num_samples=0")


def test_a_cell_runs_once_by_command_and_by_module(
    command: Command, workdir: Path, model: tuple[str, ...]
) -> None:
    cell = (*model, "dataset.num_samples=5", "decoding.max_new_tokens=4")
    first = command(*cell)
    assert first.returncode == 0, first.stderr
    assert "AUROC" in first.stderr
    (folder,) = (workdir / "results").iterdir()
    assert str(folder.relative_to(workdir)) in first.stderr
    again = forked.run(
        [sys.executable, "-m", "probegrid", "tracking=none", *cell],
        cwd=workdir,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert again.returncode == 0
    assert "nothing is computed again" in " ".join(again.stderr.split())


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("prompt.num_few_shot=350", "the model's context is 2048; lower prompt.num_few_shot"),
        ("prompt.num_few_shot=100000", "asks for more examples than the dataset can show"),
        ("dataset=facts_statements", "dataset=facts_statements holds statements"),
    ],
)
def test_a_mistake_found_after_the_plan_was_shown_is_one_sentence_too(
    invoke: Invoke, model: tuple[str, ...], workdir: Path, override: str, words: str
) -> None:
    status, stderr = invoke(*model, override)
    assert status == 2
    assert words in sentence(stderr)
    assert not recorded(workdir)


def remove_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def remove_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def change_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            remove_weight,
            "copied: it lacks 1 weights of its architecture, model.layers.1.mlp.up_proj.weight among them",
        ),
        (truncate, "is cut short"),
        (remove_weights, "no weights (*.safetensors)"),
        (remove_tokenizer, "has no tokenizer"),
        (change_shape, "copied"),
        (break_config, "config.json is not JSON"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_spoilt_checkpoint_is_the_users_mistake(
    invoke: Invoke, copied: Path, workdir: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(copied)
    status, stderr = invoke(*custom(copied))
    assert words in sentence(stderr)
    assert status == 2
    assert not recorded(workdir)


@pytest.mark.parametrize("command", [("action=plan",), ("action=run",), ("-m", "seed=0,1")])
def test_libraries_that_read_a_checkpoint_are_asked_for_before_its_weights(
    invoke: Invoke,
    copied: Path,
    workdir: Path,
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libraries, "_is_here", lambda package: package != "optimum")
    config = json.loads((copied / "config.json").read_text())
    stored = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}}
    (copied / "config.json").write_text(json.dumps(config | stored))
    status, said = invoke(*custom(copied), *command)
    words = "copied is stored as gptq4, which cannot be loaded here: optimum is not installed (pip install optimum)."
    assert words in said
    assert "Traceback" not in said
    assert status == 2
    assert not recorded(workdir)
    # what a plan says of another machine is not refused for what this one lacks
    elsewhere = ("device_map.gpus=1", "device_map.gpu_memory_gb=80")
    status, said = invoke(*custom(copied), "action=plan", *elsewhere)
    assert "which cannot be loaded here: optimum is not installed" in said
    assert status == 0


def test_pickled_weights_are_loaded_only_when_the_user_says_so(
    invoke: Invoke, copied: Path, workdir: Path
) -> None:
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    status, stderr = invoke(*custom(copied))
    assert "model.use_safetensors=false" in sentence(stderr)
    assert status == 2
    assert not recorded(workdir)
    status, stderr = invoke(*custom(copied), "model.use_safetensors=false")
    assert status == 0, stderr
    assert recorded(workdir)


def test_allowing_pickled_weights_does_not_refuse_safetensors(
    invoke: Invoke, model: tuple[str, ...], workdir: Path
) -> None:
    status, stderr = invoke(*model, "model.use_safetensors=false")
    assert status == 0, stderr


def test_a_damaged_entry_of_the_store_is_named_and_made_again(
    invoke: Invoke, model: tuple[str, ...], workdir: Path
) -> None:
    assert invoke(*model)[0] == 0
    shutil.rmtree(workdir / "results")
    (part,) = (workdir / "store").rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:50])
    status, stderr = invoke(*model)
    assert status == 0
    assert f"{part.name} is damaged (its checksum differs); it is set aside" in stderr


@pytest.mark.parametrize(
    "name", ["result.json", "config.yaml", "scores.parquet", "figures/risk_coverage.png"]
)
def test_a_damaged_cell_is_set_aside_and_made_again(
    invoke: Invoke, model: tuple[str, ...], workdir: Path, name: str
) -> None:
    assert invoke(*model)[0] == 0
    (folder,) = (file.parent for file in (workdir / "results").glob("*/result.json"))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:10] + bytes([content[10] ^ 1]) + content[11:])
    status, stderr = invoke(*model)
    assert status == 0
    assert f"{name} is damaged; the cell is kept as results/.damaged/{folder.name}-" in stderr
    assert "is done already" not in stderr
    status, stderr = invoke(*model)
    assert status == 0
    assert "is done already" in stderr
    assert list((workdir / "results" / ".damaged").glob(f"{folder.name}-*/{name}"))


@pytest.mark.parametrize("action", ["sync", "verify", "cancel", "status", "report"])
def test_results_that_are_not_there_are_not_said_to_be_well(workdir: Path, action: str) -> None:
    with pytest.raises(ProbegridError, match=r"^results_dir=mistyped ") as refused:
        act(compose_cell([f"action={action}", "results_dir=mistyped"]))
    assert refused.value.exit_status == 2
    assert not [*workdir.iterdir()]


def test_verify_of_a_store_alone_says_that_there_are_no_results(invoke: Invoke, workdir: Path) -> None:
    (workdir / "store").mkdir()
    status, said = invoke("action=verify")
    assert (status, said) == (0, "results does not exist, 0 files in store: none damaged or not readable\n")


def test_verify_names_what_is_damaged_and_sets_it_aside(
    invoke: Invoke, model: tuple[str, ...], workdir: Path
) -> None:
    assert invoke(*model)[0] == 0
    status, said = invoke("action=verify")
    assert status == 0
    assert "1 cells in results, 2 files in store: none damaged or not readable" in said
    (scores,) = (workdir / "results").glob("*/scores.parquet")
    (part,) = (workdir / "store").rglob("part-*.parquet")
    for file in (scores, part):
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    status, said = invoke("action=verify")
    assert status == 1
    assert "the commands that made it make it again" in sentence(said)
    assert f"{scores.relative_to(workdir)} is damaged" in said
    assert f"{part.relative_to(workdir)} is damaged" in said
    assert "2 damaged" in said
    assert invoke(*model)[0] == 0
    assert invoke("action=verify")[0] == 0


@pytest.mark.slow
def test_no_space_for_the_result_is_status_1_and_nothing_is_half_written(
    workdir: Path, model: tuple[str, ...]
) -> None:
    """A limit on the size of a file stands for a full disk: answers fit under it, figures do not."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (12000, 12000))"
    code = f"{limit}; from probegrid.cli import main; main()"
    overrides = ["tracking=none", *model, "dataset.num_samples=3", "decoding.max_new_tokens=4"]
    done = forked.run(
        [sys.executable, "-c", code, *overrides],
        cwd=workdir,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "cannot write results/" in sentence(done.stderr)
    assert list((workdir / "store").rglob("part-*.parquet"))
    assert not recorded(workdir)


@pytest.mark.parametrize("method", ["nf4", "int8"])
def test_quantized_cells_print_nothing_but_our_own_lines(command: Command, method: str) -> None:
    ended = command(f"quantization={method}", "dataset.num_samples=4", "decoding.max_new_tokens=2")
    assert ended.returncode == 0
    said = ended.stdout + ended.stderr
    for word in ("MatMul", "kernels", "Warning", "warning"):
        assert word not in said
