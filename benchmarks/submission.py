"""How long a grid of trivial cells takes from the command to the last submission, and how that grows.

    python benchmarks/submission.py --checkpoint FOLDER [--cells 100 500] [--launcher slurm]

Runs the command itself with ``detach=true`` on a fresh folder, then cancels; prints seconds and seconds a cell.
A SLURM is taken as it is found (``SLURM_CONF``); without one use ``--launcher local``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time


def submit(checkpoint: str, cells: int, launcher: str) -> float:
    """Submit ``cells`` cells that differ in their seed; return the seconds the command took."""
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
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "probegrid", *grid], cwd=folder, check=True, capture_output=True
        )
        seconds = time.perf_counter() - started
        subprocess.run(
            [sys.executable, "-m", "probegrid", "action=cancel"], cwd=folder, check=True, capture_output=True
        )
        time.sleep(2)
    return seconds


def main() -> None:
    """Print a line a grid size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 100, 500])
    parser.add_argument("--launcher", default="slurm")
    options = parser.parse_args()
    print("cells  seconds  seconds/cell")
    for cells in options.cells:
        seconds = submit(options.checkpoint, cells, options.launcher)
        print(f"{cells:5d}  {seconds:7.1f}  {seconds / cells:12.3f}", flush=True)


if __name__ == "__main__":
    main()
