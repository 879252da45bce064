"""Our engine beside vLLM, on the same prompts in the same run; `benchmarks/answers.py --peer vllm` runs it.

Random weights of true shape; 400 questions of 900 shared and 130 to 260 own tokens; greedy answers with their
log-probabilities, and with ten samples beside. vLLM has its prefix cache on, emptied before each run; its loading and
compiling count only in the last column, where a cell's first answers are timed from nothing.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from answers import NoStop, Workload, matmul_rate, seconds
from probegrid.inference.generation import Sampling, generate
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.inference.stopping import StopRule
from probegrid.models.fusing import fuse
from probegrid.schema import QuantizationMethod
from random_models import SHAPES, config, random_model, random_nf4_model, write_checkpoint

NONE, NF4 = QuantizationMethod.none, QuantizationMethod.nf4


@dataclass(frozen=True)
class Case:
    """A model, and how it is asked: tokens of an answer and samples beside it."""

    shape: str
    method: QuantizationMethod
    asked: tuple[tuple[int, int], ...]
    questions: int = 400
    shared: int = 900
    own: tuple[int, int] = (130, 260)
    chunk: int = 16384


SHAPES["llama70b_20_blocks"] = SHAPES["llama70b"] | {"num_hidden_layers": 20}
CASES = {
    "1b": Case("llama1b", NONE, ((16, 0), (50, 0), (16, 10))),
    "8b": Case("llama8b", NONE, ((16, 0), (50, 0), (16, 10))),
    "70b": Case("llama70b_20_blocks", NF4, ((16, 0), (50, 0))),
    "rehearsal": Case("tiny", NONE, ((6, 0), (6, 3)), questions=9, shared=30, own=(5, 9), chunk=64),
}


def run(names: list[str], new: list[int], repeats: int, console: Console) -> None:
    """Time both on some cases, with ``new`` tokens of an answer or as a case says, and print a table."""
    if importlib.util.find_spec("vllm") is None:
        console.print("vLLM is not installed here; our engine is timed alone.")
    table = Table(title=torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU")
    for column in ("model", "new", "samples", "ours s", "vLLM s", "ratio", "products alone s", "peak GB",
                   "from nothing: ours s", "vLLM s"):  # fmt: skip
        table.add_column(column, justify="right")
    for name in names:
        case = CASES[name]
        asked = tuple(each for each in case.asked if not new or (each[0] in new and not each[1]))
        _run_case(name, replace(case, asked=asked), repeats, table)
        console.print(table)  # whatever becomes of the next


def _run_case(name: str, case: Case, repeats: int, table: Table) -> None:
    vocabulary = config(case.shape).vocab_size
    works = {
        f"{new}/{samples}": Workload.draw(vocabulary, case.questions, case.shared, case.own, new)
        for new, samples in case.asked
    }
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as kernels:
        os.environ["TRITON_CACHE_DIR"] = kernels  # compiling counts in the first answers
        started = time.perf_counter()
        model = _build(case)
        build_s = time.perf_counter() - started
        ours, peaks = {}, {}
        for (new, samples), work in zip(case.asked, works.values(), strict=True):
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            call = partial(_answer, model, work, samples, case.chunk)
            ours[f"{new}/{samples}"] = [seconds(call) for _ in range(repeats + 1)]
            peaks[f"{new}/{samples}"] = (
                torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
            )
        parameters = sum(p.numel() for p in _blocks_of(case))
        del model, call
        gc.collect()
        rate = matmul_rate() if torch.cuda.is_available() else 1e11
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        peer = _vllm(Path(scratch), case, works, repeats)
    for new, samples in case.asked:
        key, work = f"{new}/{samples}", works[f"{new}/{samples}"]
        tokens = len(work.prefix) + sum(map(len, work.suffixes)) + case.questions * (1 + samples) * (new - 1)
        mine = statistics.median(ours[key][1:])
        first = key == next(iter(works))
        row = [f"{mine:.3f}", "", ""]
        if peer:
            theirs = statistics.median(peer[key][1:])
            row = [f"{mine:.3f}", f"{theirs:.3f}", f"{mine / theirs:.2f}"]
        table.add_row(
            name, str(new), str(samples), *row, f"{2 * tokens * parameters / rate:.2f}", f"{peaks[key]:.1f}",
            f"{build_s + ours[key][0]:.1f}" if first else "",
            f"{peer['load_s'] + peer[key][0]:.1f}" if first and peer else "",
        )  # fmt: skip


def _build(case: Case) -> PreTrainedModel:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if case.method is NF4:
        model = random_nf4_model(case.shape, device)
    else:
        model = random_model(case.shape, device, torch.bfloat16 if device == "cuda" else torch.float32)
    fuse(model)
    return model


def _blocks_of(case: Case) -> list[torch.Tensor]:
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        return [p for p in LlamaForCausalLM(config(case.shape)).model.layers.parameters() if p.dim() == 2]


def _answer(model: PreTrainedModel, work: Workload, samples: int, chunk: int) -> None:
    decoder = SharedPrefixDecoder(model, work.prefix, chunk_tokens=chunk)
    keys = [str(number) for number in range(len(work.suffixes))]
    rule = StopRule(NoStop(), [], [])
    generate(decoder, work.suffixes, keys, rule, max_new_tokens=work.new_tokens, sampling=Sampling(samples))


def _vllm(scratch: Path, case: Case, works: dict[str, Workload], repeats: int) -> dict:  # type: ignore[type-arg]
    """Seconds of vLLM by case, those of its loading among them; empty where it is not installed."""
    if importlib.util.find_spec("vllm") is None:
        return {}
    if case.method is NF4:
        write_checkpoint(config(case.shape), scratch, device="cuda", dtype=torch.bfloat16, method=NF4)
    else:
        (scratch / "config.json").write_text(json.dumps(config(case.shape).to_dict() | {"dtype": "bfloat16"}))
    asked = {
        key: {"prefix": work.prefix, "suffixes": work.suffixes, "new": work.new_tokens,
              "samples": int(key.split("/")[1]), "repeats": repeats + 1}
        for key, work in works.items()
    }  # fmt: skip
    (scratch / "work.json").write_text(json.dumps(asked))
    torch.cuda.empty_cache()
    command = [sys.executable, str(Path(__file__).with_name("peer_vllm.py")), str(scratch)]
    with (scratch / "log").open("w") as log:
        ended = subprocess.run(
            [*command, str(scratch / "work.json"), str(scratch / "seconds.json")],
            stdout=log,
            stderr=log,
            check=False,
        )
    if ended.returncode:
        print((scratch / "log").read_text()[-3000:])
        return {}
    return json.loads((scratch / "seconds.json").read_text())
