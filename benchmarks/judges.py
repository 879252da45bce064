"""Every judge of a model's answers in one cell: seconds by reading, and by judge.

    python benchmarks/judges.py --model FOLDER --squad dev-v1.1.json                      400 questions
    python benchmarks/judges.py --questions 20                                            rehearsal: the embedded model

``--entailment`` and ``--similarity`` name a classifier and a cross-encoder; without them texts are compared. Nothing is
in the store before. Each reading is made once, whichever judges take it; a judge's own seconds are its formula's, on
all questions. On a GPU the seconds of a reading hold until its results are on the host.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

import probegrid

console = Console(width=130, highlight=False)


def main() -> None:
    """Run the cell and print what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder of a checkpoint; else the embedded model")
    parser.add_argument("--squad", help="a file of SQuAD; else the embedded questions")
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--entailment", default="exact")
    parser.add_argument("--similarity", default="rouge_l")
    arguments = parser.parse_args()
    model = ["model=custom", f"model.path={arguments.model}"] if arguments.model else []
    data = ["dataset=squad", f"dataset.path={arguments.squad}"] if arguments.squad else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        result = probegrid.run(
            [
                *(
                    *model,
                    *data,
                    "probe=judges",
                    f"dataset.num_samples={arguments.questions}",
                    "tracking=none",
                ),
                *(f"probe.entailment={arguments.entailment}", f"probe.similarity={arguments.similarity}"),
                *(f"store_dir={folder / 'store'}", f"results_dir={folder / 'results'}"),
            ]
        )
        took = pd.read_parquet(result.folder / "judges.parquet")
    report(took, result.metrics)


def report(took: pd.DataFrame, metrics: dict[str, float]) -> None:
    """Print seconds by reading, then every judge, best first."""
    place = (
        torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    )
    seconds: dict[str, float] = {}
    for readings in took["readings"].map(json.loads):
        for name, each in readings.items():
            seconds[name] = max(each, seconds.get(name, 0.0))
    by_reading = Table(title=f"{metrics['n']:.0f} questions on {place}: seconds by reading")
    for column in ("reading", "seconds", "judges that take it"):
        by_reading.add_column(column, justify="left" if column == "reading" else "right")
    for name, each in sorted(seconds.items(), key=lambda pair: -pair[1]):
        count = took["readings"].map(json.loads).map(lambda readings, name=name: name in readings).sum()
        by_reading.add_row(name, f"{each:.2f}", str(count))
    by_reading.add_row("load", f"{metrics['load_s']:.2f}", "")
    by_reading.add_row("all formulas", f"{took['own_s'].sum():.2f}", str(len(took)))
    console.print(by_reading)
    by_judge = Table(title="by judge")
    for column in ("judge", "AUROC", "of its readings", "of its formula", "readings"):
        by_judge.add_column(column, justify="left" if column in ("judge", "readings") else "right")
    took["auroc"] = [metrics.get(f"{name}_auroc", float("nan")) for name in took["score"]]
    for row in took.sort_values("auroc", ascending=False).itertuples():
        names = ", ".join(json.loads(row.readings))
        by_judge.add_row(row.score, f"{row.auroc:.3f}", f"{row.reading_s:.2f}", f"{row.own_s:.3f}", names)
    console.print(by_judge)


if __name__ == "__main__":
    main()
