"""All judges of an answer: ours against LM-Polygraph's, on the same questions, and their values on the same tokens.

    python benchmarks/uncertainty.py --polygraph-python ENV/bin/python

The embedded model, whose samples repeat as those of real models do, and an entailment model and a cross-encoder of 5M
parameters with random weights: to it as DeBERTa-large is to an 8B. float32, on the CPU. ENV is an environment of its
own with lm-polygraph (its pins conflict with ours). Each library runs in a process of its own, in turn; seconds are of
the CPU, which other processes do not change. Then LM-Polygraph's estimators on the very tokens, samples and entailments
that ours read, beside ours. Without ``--polygraph-python`` ours is measured alone.

What LM-Polygraph does otherwise:

- Semantic entropy is the mean over samples of minus the log of their class's probability, summed and not normalized;
  ours has it as an estimator (``polygraph``), and by counts both are the discrete semantic entropy.
- Kernel language entropy weighs by probabilities and divides by log m; ours by the likeliest class, in nats.
- Semantic density reads one direction, and counts the greedy answer besides a sample of the same text.
- Lexical similarity stems words ("cars" is "car"); ours takes them as they are.
- RAUQ adds 1. Perplexity is the mean negative log-likelihood, without the exponential.
- Its own sampling makes at least 2 tokens, counts the end of sequence in an answer's likelihood but not in its length,
  goes on to the longest length where no end of sequence comes, and compares texts without their question.
- P(True) asks in other words, without worked examples.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DebertaV2Config

from probegrid.data import facts
from probegrid.embedded import checkpoint_dir
from probegrid.judges.entropies import polygraph_semantic_entropy
from probegrid.judges.graphs import heat_entropy
from probegrid.judges.meanings import density
from probegrid.models.checkpoint import find_checkpoint
from probegrid.readings.prompts import build_prompts, choose_shots
from probegrid.readings.templates import ChatTemplate
from probegrid.schema import ModelConfig, PromptConfig

SAMPLES, TOKENS, SHOTS = 10, 16, 20
METHODS = {"ours": "ours", "polygraph": "LM-Polygraph"}
SAME = {
    "MaximumSequenceProbability": "gnll",
    "Perplexity": "mean_nll",
    "MeanTokenEntropy": "mean_token_entropy",
    "SelfCertainty": "self_certainty",
    "ClaimConditionedProbability": "ccp",
    "RAUQ": "rauq",
    "RAUQ_entropy": "rauq_entropy",
    "AttentionScore": "attention_score",
    "MonteCarloSequenceEntropy": "predictive_entropy",
    "MonteCarloNormalizedSequenceEntropy": "length_normalized_entropy",
    "SemanticEntropyEmpirical": "discrete_semantic_entropy",
    "LexicalSimilarity": "lexical_similarity",
    "NumSemSets": "num_linked_sets",
    **{
        f"{theirs}_{kind}": f"{ours}{end}"
        for theirs, ours in (
            ("DegMat", "deg_mat"),
            ("EigValLaplacian", "eig_val_laplacian"),
            ("Eccentricity", "eccentricity"),
        )
        for kind, end in (("jaccard", ""), ("entail", "_entail"), ("contra", "_contra"))
    },
    "TokenSAR": "token_sar",
    "SentenceSAR": "sentence_sar",
    "SAR": "sar",
    "CocoaMSP": "cocoa_msp",
    "CocoaPPL": "cocoa_ppl",
    "CocoaMTE": "cocoa_mte",
    "EigenScore": "eigenscore",
}
"""LM-Polygraph's judges by their names, and ours of the same definition."""
ADDED = {"RAUQ": 1.0, "RAUQ_entropy": 1.0}
console = Console(width=130, highlight=False)


def main() -> None:
    """Measure, print times, compare values."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--polygraph-python", help="interpreter of an environment with lm-polygraph")
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    pythons = {"ours": sys.executable, "polygraph": arguments.polygraph_python}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_models(folder)
        (folder / "workload.json").write_text(json.dumps(workload(arguments.questions)))
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name, python in pythons.items() if python}
        for repeat in range(arguments.repeats):
            for name, measured in runs.items():
                measured.append(run(name, pythons[name], folder, folder / "workload.json", repeat))
        report(runs, arguments.questions)
        if arguments.polygraph_python:
            (folder / "read.json").write_text(json.dumps(runs["ours"][0]))
            read = folder / "read.json"
            compare(runs["ours"][0], run("polygraph_values", arguments.polygraph_python, folder, read, 0))


def write_models(folder: Path) -> None:
    """The embedded model, and two classifiers with random weights: ``classifier`` and ``cross_encoder``."""
    shutil.copytree(checkpoint_dir(), folder / "checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_dir())
    labels = {"CONTRADICTION": 0, "NEUTRAL": 1, "ENTAILMENT": 2}
    for name, named in (("classifier", labels), ("cross_encoder", {"LABEL_0": 0})):
        shape = DebertaV2Config(
            vocab_size=len(tokenizer), hidden_size=256, num_hidden_layers=4, num_attention_heads=4,
            intermediate_size=1024, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=256,
            initializer_range=0.1, pad_token_id=tokenizer.pad_token_id, label2id=named,
            id2label={number: label for label, number in named.items()},
        )  # fmt: skip
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_config(shape).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def workload(questions: int) -> dict[str, Any]:
    """The embedded questions under the few-shot prompt, as texts."""
    data = facts.load(facts.FactsConfig(num_samples=questions))
    tokenizer = AutoTokenizer.from_pretrained(find_checkpoint(ModelConfig(path="embedded:tiny")).name)
    config = PromptConfig(num_few_shot=SHOTS)
    prompts = build_prompts(data.questions, choose_shots(data, config), config, ChatTemplate(tokenizer, None))
    return {
        "questions": [question.text for question in data.questions],
        "prompts": [prompt.text for prompt in prompts],
        "shots": SHOTS,
        "samples": SAMPLES,
        "tokens": TOKENS,
    }


def run(name: str, python: str, folder: Path, work: Path, repeat: int) -> dict[str, Any]:
    """One method in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    out = folder / f"{name}-{repeat}.json"
    script = Path(__file__).with_name("uncertainty_methods.py")
    command = [python, script, name, folder, work, out]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def report(runs: dict[str, list[dict[str, Any]]], questions: int) -> None:
    """Print medians and ratios to ours."""
    table = Table(
        title=f"all judges of {questions} questions, {SAMPLES} samples, {SHOTS} shots, {TOKENS} new tokens, embedded "
        f"model in float32, {torch.get_num_threads()} threads; medians of {len(runs['ours'])}"
    )
    for column in ("library", "judges", "CPU seconds", "seconds", "times ours (CPU)"):
        table.add_column(column, justify="left" if column == "library" else "right")
    best = statistics.median(one["cpu_s"] for one in runs["ours"])
    for name, measured in runs.items():
        cpu, seconds = (statistics.median(one[part] for one in measured) for part in ("cpu_s", "seconds"))
        table.add_row(
            METHODS[name], str(measured[0]["judges"]), f"{cpu:.1f}", f"{seconds:.1f}", f"{cpu / best:.1f}"
        )
    console.print(table)
    console.print(
        "ours includes loading both classifiers and writing the store; p(true) has 20 worked examples"
    )
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in runs["ours"][0]["readings"].items())
    console.print(
        f"ours, seconds by reading: {parts}; all formulas {sum(runs['ours'][0]['formulas'].values()):.2f}"
    )
    if "polygraph" in runs:
        slow = sorted(runs["polygraph"][0]["times"].items(), key=lambda pair: -pair[1])[:8]
        console.print(
            f"LM-Polygraph, CPU seconds: {', '.join(f'{name} {seconds:.1f}' for name, seconds in slow)}"
        )


def compare(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Print the largest difference of each estimator from ours on the same tokens, samples and entailments."""
    kept, values = theirs["kept"], {name: np.array(found) for name, found in theirs["values"].items()}
    own = {name: -np.array(found)[kept] + ADDED.get(theirs_name, 0.0)
           for theirs_name, name in SAME.items() for found in [mine["scores"][name]]}  # fmt: skip
    pairs = {name: (ours, own[ours]) for name, ours in SAME.items()} | _of_other_definitions(mine, kept)
    table = Table(title=f"LM-Polygraph's estimators on what ours read, {len(kept)} questions")
    for column in ("LM-Polygraph", "ours", "mean of ours", "largest difference"):
        table.add_column(column, justify="right" if column[:4] in ("mean", "larg") else "left")
    for name, (ours, found) in pairs.items():
        difference = float(np.abs(values[name] - found).max())
        table.add_row(name, ours, f"{found.mean():.4f}", f"{difference:.1e}")
    console.print(table)


def _of_other_definitions(mine: dict[str, Any], kept: list[int]) -> dict[str, tuple[str, Any]]:
    """What it defines otherwise, by our own formulas of its definition."""
    relations = [np.array(mine["relations"][row])[1:, 1:] for row in kept]
    generations = [mine["generations"][row] for row in kept]
    clusters = [_clusters(found) for found in relations]
    sums = [[sum(one["logprobs"]) for one in found[1:]] for found in generations]
    return {
        "SemanticEntropy": (
            "semantic_entropy, estimator=polygraph",
            np.array(list(map(polygraph_semantic_entropy, sums, clusters))),
        ),
        "KernelLanguageEntropy": (
            "heat_entropy, soft=True, over log m",
            np.array([heat_entropy(found, soft=True) / math.log(SAMPLES) for found in relations]),
        ),
        "SemanticDensity": (
            "density, one direction",
            -np.array([
                _density(found, np.array(mine["relations"][row])[0, 1:])
                for found, row in zip(generations, kept, strict=True)
            ]),
        ),
    }  # fmt: skip


def _clusters(relations: Any) -> list[int]:
    """First-match clusters by likeliest entailment both ways."""
    entails = relations.argmax(-1) == 2
    firsts: list[int] = []
    found = []
    for row in range(len(relations)):
        same = [place for place, first in enumerate(firsts) if entails[first, row] and entails[row, first]]
        if not same:
            firsts.append(row)
        found.append(same[0] if same else len(firsts) - 1)
    return found


def _density(found: list[dict[str, Any]], to_samples: Any) -> float:
    means = [sum(one["logprobs"]) / len(one["logprobs"]) for one in found]
    texts = [one["text"] for one in found[1:]]
    rows = [row for row, text in enumerate(texts) if texts.index(text) == row]
    relations = np.concatenate([to_samples[rows], [[0.0, 0.0, 1.0]]])
    return density(np.array([*(means[1 + row] for row in rows), means[0]]), relations, relations)


if __name__ == "__main__":
    main()
