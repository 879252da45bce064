"""A lab's store: two users of one group, each with an id of their own, share what either has read."""

from __future__ import annotations

import encodings.utf_16_be
import encodings.utf_32_be  # noqa: F401  # which a report imports late, and another user may not read
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from disturbed import status_of

import probegrid

SMALL = ("dataset.num_samples=8", "prompt.num_few_shot=1", "decoding.max_new_tokens=4", "tracking=none")
GROUP, ANNE, BERT = 23456, 23457, 23458

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users"),
]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder of the group, which all that is made in it belongs to."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and str(folder) != "/":
            folder.chmod(folder.stat().st_mode | 0o011)
    folder = tmp_path / "shared"
    folder.mkdir()
    os.chown(folder, 0, GROUP)
    folder.chmod(0o2775)
    return folder


def as_user(user: int, umask: int, folder: Path, *overrides: str) -> tuple[int, str]:
    """What the command ends with and says, run by another user.

    In a child of this process, which has imported everything already: another user may not read what we import from.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.setgroups([])
        os.setgid(GROUP)
        os.setuid(user)
        os.umask(umask)
        os.chdir(folder)
        os.environ |= {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / f".cache-{user}")}
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115  # in place of what pytest reads
        os._exit(status_of(list(overrides)))
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


@pytest.fixture
def cell(checkpoint: Callable[[str], Path], workdir: Path, shared: Path) -> tuple[str, ...]:
    model = ("model=custom", f"model.path={shared}/model", "model.dtype=float32", "quantization=nf4")
    shutil.copytree(checkpoint("llama"), shared / "model")
    for file in (shared / "model").iterdir():
        file.chmod(0o644)  # safetensors wrote 0600
    probegrid.run([*model, *SMALL])  # so that nothing is left to import
    return (*model, *SMALL, f"store_dir={shared}/store", f"results_dir={shared}/results")


def test_what_one_has_read_serves_the_other(cell: tuple[str, ...], shared: Path) -> None:
    status, said = as_user(ANNE, 0o002, shared, *cell)
    assert status == 0, said
    made = {file for file in shared.glob("store/**/*") if file.is_file()}
    assert any(file.suffix == ".safetensors" for file in made)
    assert all(file.stat().st_mode & 0o060 == 0o060 for file in made)
    status, said = as_user(BERT, 0o002, shared, *cell, "probe=p_true")
    assert status == 0, said
    assert "damaged" not in said
    quantized = {file for file in made if "quantized" in file.parts}
    assert {file for file in shared.glob("store/quantized/**/*") if file.is_file()} == quantized
    status, said = as_user(BERT, 0o002, shared, *cell)
    assert status == 0, said
    assert "is done already" in said
    status, said = as_user(ANNE, 0o002, shared, *cell, "force=true")
    assert status == 0, said
    status, said = as_user(
        BERT, 0o002, shared, f"results_dir={shared}/results", "action=report", "tracking=none"
    )
    assert status == 0, said


def test_what_may_not_be_read_is_not_called_damaged(cell: tuple[str, ...], shared: Path) -> None:
    status, said = as_user(ANNE, 0o077, shared, *cell)
    assert status == 0, said
    files = {file: file.read_bytes() for file in shared.glob("*/**/*") if file.is_file()}
    status, said = as_user(BERT, 0o002, shared, *cell, "results_dir=mine")
    assert status == 1, said
    assert "damaged" not in said
    assert "Traceback" not in said
    assert "permission" in said.lower()
    assert {file: file.read_bytes() for file in shared.glob("*/**/*") if file in files} == files
