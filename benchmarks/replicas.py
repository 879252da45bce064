"""Copies of a model that share one cell's questions: seconds of the whole cell and of its reading, by GPUs.

    python benchmarks/replicas.py                              a small shape, processes on the CPU
    python benchmarks/replicas.py --preset 8b --gpus 1 2       4000 questions of an 8B in bf16, on GPUs of 80 GB
    python benchmarks/replicas.py --preset 8b --gpus 1 2 4

Each row is a command of its own with an empty store, ``device_map.replicas`` as many as GPUs. ``cell`` is from its
start to its end, imports, load and evaluation included; ``reading`` from the first batch that anybody began to the last
that ended, in which a copy that starts later is missing at first; ``together`` the questions a second once all read.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from random_models import config, write_checkpoint

PRESETS = {
    "rehearsal": dict(shape="small", questions=300, own=(10, 30), shots=2, new=8, dtype="float32"),
    "8b": dict(shape="llama8b", questions=4000, own=(130, 260), shots=5, new=16, dtype="bfloat16"),
}
console = Console(width=120, highlight=False)


@dataclass(frozen=True)
class Timed:
    """What a command took, in seconds."""

    copies: int
    cell_s: float
    reading_s: float
    together_per_s: float
    """Questions a second from when the last copy had its first batch begun."""
    read_s: float
    """Of all copies together."""
    answers: list[tuple[str, list[int]]]


def write_questions(file: Path, tokenizer_folder: Path, count: int, own: tuple[int, int]) -> None:
    """Questions of words that the tokenizer has, each of so many tokens, and an answer."""
    draw = random.Random(0)
    vocabulary = AutoTokenizer.from_pretrained(tokenizer_folder).get_vocab()
    words = sorted(word.strip("\u0120\u2581 ") for word in vocabulary)
    words = [word for word in dict.fromkeys(words) if word.isalpha() and word.islower()]
    rows = [
        {"question": " ".join(draw.choices(words, k=draw.randint(*own))), "answers": [draw.choice(words)]}
        for _ in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def timed(folder: Path, copies: int, preset: dict[str, object], *, on_gpus: bool) -> Timed:
    """Run the cell with an empty store."""
    place = folder / f"copies-{copies}"
    place.mkdir()
    words = [
        *(
            "tracking=none",
            "model=custom",
            f"model.path={folder}/checkpoint",
            f"model.dtype={preset['dtype']}",
        ),
        *(
            "dataset=jsonl",
            f"dataset.path={folder}/questions.jsonl",
            f"dataset.num_samples={preset['questions']}",
        ),
        *(f"prompt.num_few_shot={preset['shots']}", f"decoding.max_new_tokens={preset['new']}"),
        *(
            "prompt.stop=[never]",
            f"device_map={'auto' if on_gpus else 'cpu'}",
            f"device_map.replicas={copies}",
        ),
    ]
    words += [f"device_map.gpus={copies}"] if on_gpus else []
    started = time.perf_counter()
    command = [sys.executable, "-m", "probegrid", *words]
    ended = subprocess.run(command, cwd=place, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False)
    seconds = time.perf_counter() - started
    if ended.returncode:
        raise SystemExit(ended.returncode)
    record = json.loads(next(place.glob("results/*/result.json")).read_text())
    if record["readers"] < copies:
        console.print(f"[red]only {record['readers']} of {copies} copies read: too few questions[/red]")
    table = pq.read_table(next(place.glob("results/*/answers.parquet"))).to_pylist()
    answers = [(row["example_id"], row["token_ids"]) for row in table]
    return Timed(copies, seconds, *_reading(place, copies), record["metrics"]["read_s"], answers)


def _reading(place: Path, copies: int) -> tuple[float, float]:
    """Seconds from the first batch's begin to the last one's end; questions a second of all copies at work."""
    batches: dict[float, tuple[float, int]] = {}
    for file in place.glob("store/answers/*/part-*.parquet"):
        for row in pq.read_table(file).to_pylist():  # all rows of a batch were written at once
            seconds, rows = batches.get(row["read_at"], (0.0, 0))
            batches[row["read_at"]] = seconds + row["seconds"], rows + 1
    spans = sorted((end - seconds, end, rows) for end, (seconds, rows) in batches.items())
    first, last = spans[0][0], max(end for _, end, _ in spans)
    begun = next(
        (start for start, _, _ in spans if sum(other <= start < end for other, end, _ in spans) >= copies),
        first,
    )
    after = [(start, end, rows) for start, end, rows in spans if end > begun]
    done = sum(rows * (end - max(start, begun)) / (end - start) for start, end, rows in after)
    return last - first, done / max(last - begun, 1e-9)


def main() -> None:
    """Run each number of copies and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="rehearsal")
    parser.add_argument(
        "--gpus", type=int, nargs="+", default=[1, 2], help="copies, a GPU each where there are GPUs"
    )
    parser.add_argument("--questions", type=int, help="how many, if not as the preset says")
    parser.add_argument(
        "--scratch", type=Path, help="where the checkpoint is written; the system's own place"
    )
    options = parser.parse_args()
    preset, on_gpus = dict(PRESETS[options.preset]), torch.cuda.is_available()
    if options.questions:
        preset["questions"] = options.questions
    if on_gpus and max(options.gpus) > torch.cuda.device_count():
        raise SystemExit(f"--gpus {max(options.gpus)}: {torch.cuda.device_count()} are here.")
    with tempfile.TemporaryDirectory(dir=options.scratch) as temporary:
        folder = Path(temporary)
        (folder / "checkpoint").mkdir()
        dtype = getattr(torch, str(preset["dtype"]))
        device = "cuda" if on_gpus else "cpu"
        shape = config(str(preset["shape"]))
        written = write_checkpoint(
            shape, folder / "checkpoint", device=device, dtype=dtype, blocks_per_file=1
        )
        # the pool of few-shot examples is half of one file, at most
        count, own = int(str(preset["questions"])), preset["own"]
        assert isinstance(own, tuple)
        write_questions(folder / "questions.jsonl", folder / "checkpoint", count + 500, own)
        console.print(f"{preset['shape']}, {written / 1e9:.2f} GB, {count} questions")
        if on_gpus:
            torch.cuda.empty_cache()
        found = [timed(folder, copies, preset, on_gpus=on_gpus) for copies in options.gpus]
    table = Table(
        "copies", "cell s", "ratio", "reading s", "ratio", "together/s", "ratio", "device s", "answers equal"
    )
    first = found[0]
    for each in found:
        equal = sum(a == b for a, b in zip(first.answers, each.answers, strict=True))
        table.add_row(
            str(each.copies),
            f"{each.cell_s:.1f}",
            f"{first.cell_s / each.cell_s:.2f}",
            f"{each.reading_s:.1f}",
            f"{first.reading_s / each.reading_s:.2f}",
            f"{each.together_per_s:.1f}",
            f"{each.together_per_s / first.together_per_s:.2f}",
            f"{each.read_s:.1f}",
            f"{equal}/{len(each.answers)}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
