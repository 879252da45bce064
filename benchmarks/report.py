"""Seconds that `action=report` takes over many recorded cells: reading them, tables, comparisons, figures, page.

    python benchmarks/report.py --cells 100 200 400 800 [--profile]

Cells of 400 answers, recorded by the real writer: two models x three quantizations x four datasets, the rest
seeds. Linear is as good as it gets; CPU seconds are for machines that others use too, and the most memory is of the
process so far: a number of cells alone gives its own.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice, product
from pathlib import Path

import numpy as np
import pyarrow as pa

from probegrid.compose import compose_cell
from probegrid.report.report import report_on
from probegrid.schema import Choices, ReportConfig, to_plain
from probegrid.tracking import record
from probegrid.tracking.provenance import Provenance
from probegrid.tracking.record import CellRecord, Status

ANSWERS = 400
MODELS, METHODS, DATASETS = (
    ("llama8b", "llama70b"),
    ("none", "int8", "nf4"),
    ("facts", "squad", "trivia_qa", "mine"),
)


def record_cells(folder: Path, count: int) -> None:
    """Record so many cells that differ in a choice or in their seed."""
    generator = np.random.default_rng(0)
    ids = [f"question-{index}" for index in range(ANSWERS)]
    config = to_plain(compose_cell([]).config)
    grid = product(range(count), MODELS, METHODS, DATASETS)
    for number, (seed, model, method, dataset) in enumerate(islice(grid, count)):
        right = generator.random(ANSWERS) < 0.6
        score = generator.normal(size=ANSWERS) + right
        prompts = [f"{dataset} {name}" for name in ids]
        choices = Choices(model, method, "auto", dataset, "gnll")
        record.write(
            folder,
            CellRecord(
                cell=f"{number:016x}",
                name=choices.name,
                status=Status.done,
                choices=asdict(choices),
                provenance=Provenance(
                    None, None, "node", ("H100",), None, "probegrid", f"2026-03-01T{number:010d}", 60.0
                ),
                metrics=_metrics(right, score, read_s=10 + number / 1000),
                plan={"parameters": 8e9 if model == "llama8b" else 70e9, "gpus": 1},
            ),
            config | {"seed": seed},
            tables={
                "scores": pa.table(
                    {
                        "example_id": ids,
                        "group": ids,
                        "split": ["test"] * ANSWERS,
                        "label": right,
                        "score": score,
                    }
                ),
                "other_scores": pa.table(
                    {
                        "example_id": ids,
                        "mean_nll": score + generator.normal(size=ANSWERS),
                        "n_tokens": -score,
                    }
                ),
                "answers": pa.table(
                    {
                        "example_id": ids,
                        "question": prompts,
                        "prompt": prompts,
                        "answer": [f"answer {name}" for name in ids],
                        "references": [
                            [f"{'' if is_right else 'other '}answer {name}"]
                            for name, is_right in zip(ids, right, strict=True)
                        ],
                        "correct": right,
                    }
                ),
            },
        )


def _metrics(right: np.ndarray, score: np.ndarray, *, read_s: float) -> dict[str, float]:
    from probegrid.evaluation.ranking import auroc

    area, accuracy = auroc(right, score), float(right.mean())
    values = {
        "n": ANSWERS,
        "accuracy": accuracy,
        "auroc": area,
        "aurc": 0.2,
        "mean_nll_auroc": area,
        "n_tokens_auroc": area,
    }
    ends = {
        f"{name}_ci_{end}": value for name, value in values.items() for end in ("low", "high") if name != "n"
    }
    costs = {
        "load_s": 5.0,
        "read_s": read_s,
        "tokens_per_s": 400 / read_s,
        "peak_ram_gb": 4.0,
        "peak_gpu_gb_0": 40.0,
    }
    return values | ends | costs


def timed(folder: Path, *, compare: str, profile: bool) -> tuple[float, float]:
    """Wall-clock and CPU seconds of one report into a folder of its own."""
    config = ReportConfig(folder=str(folder.with_name("report")), compare=compare, resamples=200)
    profiler = cProfile.Profile(time.process_time)  # what other processes take is no news
    started, cpu = time.perf_counter(), time.process_time()
    if profile:
        profiler.runcall(report_on, folder, config)
        pstats.Stats(profiler, stream=sys.stdout).sort_stats("cumulative").print_stats(60)
    else:
        report_on(folder, config)
    return time.perf_counter() - started, time.process_time() - cpu


def main(arguments: Sequence[str] | None = None) -> None:
    """Record cells, report on them, print the seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, nargs="+", default=[100, 200, 400, 800])
    parser.add_argument("--compare", default="quantization")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args(arguments)
    for count in given.cells:
        place = Path(tempfile.mkdtemp(prefix="probegrid-report-"))
        try:
            record_cells(place / "results", count)
            seconds, cpu = timed(place / "results", compare=given.compare, profile=given.profile)
            peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            print(
                f"{count:6}  {seconds:8.1f} s  {cpu:8.1f} s of CPU  {cpu / count:8.4f} a cell  "
                f"{peak_gb:5.2f} GB at most",
                flush=True,
            )
        finally:
            shutil.rmtree(place)


if __name__ == "__main__":
    main()
