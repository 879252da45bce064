"""What torch's threads cost where other processes use the cores, by how they wait: the embedded model, 64 answers.

    python benchmarks/threads.py                  beside two processes that compute
    python benchmarks/threads.py --beside 0       beside none: the machine must be quiet

Each way runs in a process of its own, in turn, with the wall-clock and CPU seconds of its fastest reading of three:
what else the machine does slows a reading down, never up.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

WAYS = {
    "as torch does by itself": {},
    "asleep, as probegrid sets it": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
_SET = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")


def main() -> None:
    """Measure every way in turn, or, in a process of its own, one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--beside", type=int, default=2, help="processes that compute meanwhile")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(*measure())
        return
    beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.beside)]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    clean = {name: value for name, value in os.environ.items() if name not in _SET}
    try:
        for _ in range(arguments.repeats):
            for name, way in WAYS.items():
                command = [sys.executable, __file__, "--one"]
                done = subprocess.run(command, env=clean | way, capture_output=True, text=True, check=True)
                wall_s, cpu_s = map(float, done.stdout.split())
                found[name].append((wall_s, cpu_s))
    finally:
        for process in beside:
            process.kill()
    print(f"beside {arguments.beside} processes; medians of {arguments.repeats}: wall-clock and CPU seconds")
    for name, measured in found.items():
        wall_s, cpu_s = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{wall_s:8.2f} {cpu_s:8.2f}  {name}")


def measure() -> tuple[float, float]:
    """Wall-clock and CPU seconds of the fastest of three readings, in this process."""
    import torch
    from transformers import AutoModelForCausalLM

    from answers import Workload, ours
    from probegrid.embedded import checkpoint_dir

    model = AutoModelForCausalLM.from_pretrained(str(checkpoint_dir()), dtype=torch.float32).eval()
    work = Workload.draw(model.config.vocab_size, 64, 60, (12, 12), 20)
    measured = []
    for _ in range(4):  # the first warms up
        wall, cpu = time.perf_counter(), time.process_time()
        ours(model, work, 64, 1024)
        measured.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(measured[1:])


if __name__ == "__main__":
    main()
