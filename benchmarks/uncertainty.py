"""Semantic entropy with ten samples and an entailment model: ours against LM-Polygraph's, on the same questions.

    python benchmarks/uncertainty.py --polygraph-python ENV/bin/python

A random 100M model and a random entailment model of 20M, float32, on the CPU. ENV is an environment of its own with
lm-polygraph (its pins conflict with ours). Each method runs in a process of its own, in turn; medians are printed, then
LM-Polygraph's estimators on the very tokens that ours generated, beside ours. Without ``--polygraph-python`` ours is
measured alone.

What LM-Polygraph does otherwise:

- Semantic entropy is the mean over samples of minus the log of their class's probability (Kuhn et al. 2023), which is
  the sum of the samples' whole likelihoods, not normalized over the classes; ours, as Farquhar et al. 2024, is the
  entropy of classes whose probabilities sum to 1, of length-normalized likelihoods. The values differ by definition,
  the classes are the same. By counts (``SemanticEntropyEmpirical``) both are the discrete semantic entropy.
- ``Perplexity`` is the mean negative log-likelihood, the logarithm of ours.
- Its own sampling makes at least 2 tokens, counts the end of sequence in an answer's likelihood but not in its length,
  and keeps the 50 likeliest tokens unless told otherwise (here it is). The texts it compares have no question.
- P(True) asks in other words, with no samples, for the token ``True``; the two are compared on its prompt.
"""

from __future__ import annotations

import argparse
import json
import math
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
from probegrid.models.checkpoint import find_checkpoint
from probegrid.readings.prompts import build_prompts, choose_shots
from probegrid.readings.templates import ChatTemplate
from probegrid.schema import ModelConfig, PromptConfig
from random_models import config, write_checkpoint

SHAPE, SAMPLES, TOKENS, SHOTS = "100m", 10, 16, 20
METHODS = {"ours": "ours: greedy answer and 10 samples", "polygraph": "LM-Polygraph: 10 samples"}
console = Console(width=130, highlight=False)


def main() -> None:
    """Measure, print times, compare values."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--polygraph-python", help="interpreter of an environment with lm-polygraph")
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
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
            (folder / "tokens.json").write_text(json.dumps(runs["ours"][0]))
            tokens = folder / "tokens.json"
            theirs = run("polygraph_values", arguments.polygraph_python, folder, tokens, 0)
            compare(runs["ours"][0], theirs)


def write_models(folder: Path) -> None:
    """A language model and a classifier with random weights, in ``checkpoint`` and ``classifier``."""
    for name in ("checkpoint", "classifier"):
        (folder / name).mkdir()
    write_checkpoint(config(SHAPE), folder / "checkpoint", device="cpu", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_dir())
    labels = {"CONTRADICTION": 0, "NEUTRAL": 1, "ENTAILMENT": 2}
    shape = DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=384, num_hidden_layers=8, num_attention_heads=6, intermediate_size=1536,
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=256, initializer_range=0.1,
        pad_token_id=tokenizer.pad_token_id, label2id=labels, id2label={i: name for name, i in labels.items()},
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(shape).save_pretrained(folder / "classifier")
    tokenizer.save_pretrained(folder / "classifier")


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
    command = [python, script, name, folder / "checkpoint", folder / "classifier", work, out]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def report(runs: dict[str, list[dict[str, Any]]], questions: int) -> None:
    """Print medians and ratios to ours."""
    table = Table(
        title=f"semantic entropy of {questions} questions, {SHOTS} shots, {TOKENS} new tokens, random {SHAPE} model in "
        f"float32, {torch.get_num_threads()} threads; medians of {len(runs['ours'])}"
    )
    for column in ("method", "seconds", "of which entailment", "slower"):
        table.add_column(column, justify="left" if column == "method" else "right")
    best = statistics.median(one["seconds"] for one in runs["ours"])
    for name, measured in runs.items():
        seconds, entailment_s = (
            statistics.median(one[part] for one in measured) for part in ("seconds", "entailment_s")
        )
        table.add_row(METHODS[name], f"{seconds:.2f}", f"{entailment_s:.2f}", f"{seconds / best:.1f}")
    console.print(table)
    console.print(
        "loading the language models is left out; ours includes loading the classifier and writing the store"
    )


def compare(mine: dict[str, Any], theirs: dict[str, list[Any]]) -> None:
    """Print the largest difference of each estimator from ours on the same tokens."""
    scores = {name: -np.array(values) for name, values in mine["scores"].items()}
    samples = [found[1:] for found in mine["generations"]]
    pairs = {
        "SemanticEntropyEmpirical": ("discrete_semantic_entropy", scores["discrete_semantic_entropy"]),
        "MonteCarloSequenceEntropy": ("predictive_entropy", scores["predictive_entropy"]),
        "MonteCarloNormalizedSequenceEntropy": (
            "length_normalized_entropy",
            scores["length_normalized_entropy"],
        ),
        "MaximumSequenceProbability": ("gnll", scores["gnll"]),
        "Perplexity": (
            "log of the perplexity",
            np.array([mean_nll(found[0]) for found in mine["generations"]]),
        ),
        "PTrue": ("choices, on its prompt", -np.array(mine["p_true"])),
        "SemanticEntropy": (
            "its formula, written out",
            np.array(list(map(kuhn, samples, theirs["classes"]))),
        ),
    }
    table = Table(title="LM-Polygraph's estimators on the tokens that ours generated")
    for column in ("LM-Polygraph", "ours", "mean of ours", "largest difference"):
        table.add_column(column, justify="right" if column[:4] in ("mean", "larg") else "left")
    for name, (own, values) in pairs.items():
        difference = float(np.abs(np.array(theirs[name]) - values).max())
        table.add_row(name, own, f"{values.mean():.3f}", f"{difference:.1e}")
    console.print(table)
    classes = [
        farquhar(found, of_question) for found, of_question in zip(samples, theirs["classes"], strict=True)
    ]
    difference = float(np.abs(np.array(classes) - scores["semantic_entropy"]).max())
    console.print(f"our semantic entropy from its classes: largest difference {difference:.1e}")


def mean_nll(answer: dict[str, Any]) -> float:
    """Mean negative log-likelihood of an answer's tokens."""
    return -sum(answer["logprobs"]) / len(answer["logprobs"])


def kuhn(samples: list[dict[str, Any]], classes: list[int]) -> float:
    """LM-Polygraph's formula: the mean over samples of minus the log of their class's summed likelihoods."""
    sums = np.array([sum(sample["logprobs"]) for sample in samples])
    of_class = [np.logaddexp.reduce(sums[np.array(classes) == number]) for number in classes]
    return -float(np.mean(of_class))


def farquhar(samples: list[dict[str, Any]], classes: list[int]) -> float:
    """Ours, written out: the entropy of the classes' shares of length-normalized likelihood."""
    weights: dict[int, float] = {}
    for number, sample in zip(classes, samples, strict=True):
        weights[number] = weights.get(number, 0.0) + math.exp(-mean_nll(sample))
    total = sum(weights.values())
    return -sum(weight / total * math.log(weight / total) for weight in weights.values())


if __name__ == "__main__":
    main()
