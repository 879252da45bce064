"""Disks that are full, before a sweep or in the middle of a cell, and then have room again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from alone import numbers_alone
from sweep_helpers import Grid, finish, wait_until

from probegrid.errors import StoreError

FAST = (
    "dataset.num_samples=8",
    "decoding.batch_size='1'",
    "decoding.max_new_tokens=4",
    "prompt.num_few_shot=0",
    "hydra.launcher.poll_s=0.3",
)
SIZE_MB = 150
"""More than a cell asks to be free before it starts."""
Checkpoints = Callable[[str], Path]
Numbers = Mapping[tuple[int, int], dict[str, str]]


@dataclass(frozen=True)
class Disk:
    """A small disk that can be filled."""

    folder: Path

    def fill(self, spare_kb: int = 0) -> None:
        """Take all room but some."""
        with (self.folder / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while filler.write(bytes(1 << 20)):
                pass
        os.truncate(self.folder / "filler", (self.folder / "filler").stat().st_size - spare_kb * 1024)

    def make_room(self) -> None:
        """Give it back."""
        (self.folder / "filler").unlink()

    def leftovers(self) -> list[Path]:
        """What writers that were stopped left behind."""
        return [path for path in self.folder.rglob(".*") if "tmp" in path.name or "old" in path.name]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoints) -> Numbers:
    """What this module's cells say alone, with room, by questions and seed."""
    folder = tmp_path_factory.mktemp("roomy")
    return numbers_alone(folder, checkpoint("llama"), FAST[1:4], samples=[8], seeds=[0, 1])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "probegrid", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted, `unshare -rm make test` can: {mounted.stderr.strip()}")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_the_store_is_full_in_mid_cell(
    grid: Grid, checkpoint: Checkpoints, disk: Disk, reference: Numbers
) -> None:
    slow = grid.add_faulty("slow", checkpoint("llama"))
    slow.set("slow 0.4")
    command = (*FAST, "model=slow", "seed=0,1")

    launcher = grid.start(*command, f"store_dir={disk.folder}/store")
    wait_until(lambda: grid.has_started() and grid.progress(1) >= 2)
    disk.fill()
    ended = finish(launcher)
    assert ended.returncode == 1
    assert grid.states() == ["done", "failed"]
    (failed,) = (record for record in grid.records().values() if record["status"] == "failed")
    assert failed["error"]["type"] == "StoreError"
    assert f"no space is left for {disk.folder}/store/answers/" in failed["error"]["message"]
    assert not disk.leftovers()

    disk.make_room()
    slow.mend()
    assert grid.run(*command, f"store_dir={disk.folder}/store").returncode == 0
    assert grid.numbers_by_draw() == reference


@pytest.mark.parametrize("spare_kb", [0, 40])
def test_the_records_are_full_in_mid_cell(
    grid: Grid, checkpoint: Checkpoints, disk: Disk, spare_kb: int, reference: Numbers
) -> None:
    slow = grid.add_faulty("slow", checkpoint("llama"))
    slow.set("slow 0.4")
    (grid.folder / "results").symlink_to(disk.folder / "results")
    (disk.folder / "results").mkdir()
    command = (*FAST, "model=slow", "seed=0,1")

    launcher = grid.start(*command)
    wait_until(lambda: grid.has_started() and grid.progress(1) >= 2)
    disk.fill(spare_kb)
    ended = finish(launcher)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "no space is left" in ended.stdout + ended.stderr
    assert [record["status"] for record in grid.records().values()].count("done") == 1
    assert not disk.leftovers()

    disk.make_room()
    slow.mend()
    again = grid.run(*command)
    assert again.returncode == 0
    assert "2 cells: 1 done already, 0 on their way, 1 to run" in again.stderr
    assert grid.numbers_by_draw() == reference


def test_there_is_no_room_for_the_sweep_itself(grid: Grid, checkpoint: Checkpoints, disk: Disk) -> None:
    grid.add_model("sound", checkpoint("llama"))
    command = (*FAST, "model=sound", "seed=range(40)", f"results_dir={disk.folder}/results")
    for spare_kb in (0, 8):
        disk.fill(spare_kb)
        refused = grid.run(*command)
        assert refused.returncode == 1
        assert (
            f"no space is left for {disk.folder}/results/.sweeps/" in refused.stderr.strip().splitlines()[-1]
        )
        assert not disk.leftovers()
    disk.make_room()
    assert (
        "40 cells: 0 done already, 0 on their way, 40 to run"
        in grid.run(*command, "hydra.launcher.detach=true").stderr
    )
    grid.look("action=cancel", f"results_dir={disk.folder}/results")


def test_activations_have_no_room(disk: Disk) -> None:
    import torch

    from probegrid.readings.layer_store import LayerStore
    from probegrid.readings.store import Entry

    layer = LayerStore(Entry(disk.folder, "activations", {"of": "this test"}), 1)
    disk.fill(spare_kb=16)
    with pytest.raises(StoreError, match=f"no space is left for {layer.folder}"):
        layer.write(["a passage"], [100], torch.ones(100, 1000, dtype=torch.bfloat16), [0.1])
    assert not disk.leftovers()
    disk.make_room()
    layer.write(["a passage"], [100], torch.ones(100, 1000, dtype=torch.bfloat16), [0.1])
    assert layer.stored() == {"a passage"}
