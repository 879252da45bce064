"""How long a grid of trivial cells takes from the command to the last submission, and how that grows.

    python benchmarks/submission.py --checkpoint FOLDER [--cells 100 500] [--launcher slurm]

Runs the command itself with ``detach=true`` on a fresh folder, then cancels; prints wall-clock and CPU seconds
(the launcher's own: on a shared machine the two differ), and each a cell.
A SLURM is taken as it is found (``SLURM_CONF``); without one use ``--launcher local``.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time


def submit(checkpoint: str, cells: int, launcher: str) -> tuple[float, float]:
    """Submit ``cells`` cells that differ in their seed; return wall-clock and CPU seconds of the command."""
    grid = [
        "-m",
        f"hydra/launcher={launcher}",
        "hydra.launcher.detach=true",
        "model=custom",
        f"model.path={checkpoint}",
        "dataset.num_samples=2",
        "tracking=none",
        f"seed=range({cells})",
    ]
    with tempfile.TemporaryDirectory() as folder:
        started, cpu = time.perf_counter(), _children_cpu_s()
        subprocess.run(
            [sys.executable, "-m", "probegrid", *grid], cwd=folder, check=True, capture_output=True
        )
        seconds, cpu = time.perf_counter() - started, _children_cpu_s() - cpu
        subprocess.run(
            [sys.executable, "-m", "probegrid", "action=cancel"], cwd=folder, check=True, capture_output=True
        )
        time.sleep(2)
    return seconds, cpu


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print a line a grid size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 100, 500])
    parser.add_argument("--launcher", default="slurm")
    options = parser.parse_args()
    print("cells  seconds  seconds/cell    CPU s  CPU s/cell")
    for cells in options.cells:
        seconds, cpu = submit(options.checkpoint, cells, options.launcher)
        print(
            f"{cells:5d}  {seconds:7.1f}  {seconds / cells:12.3f}  {cpu:7.1f}  {cpu / cells:10.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
