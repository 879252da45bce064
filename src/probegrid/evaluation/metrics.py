"""The metrics a cell can report: what each name means, its unit and its direction."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from difflib import get_close_matches


@dataclass(frozen=True)
class MetricInfo:
    """What a reader needs to know of a metric.

    Attributes:
        description: one sentence part, without a full stop.
        unit: `1` for a share or a probability, else `examples`, `tokens`, `nats`, `s`, `GB` (10^9 bytes) or a rate.
        higher_is_better: `None` where neither direction is better.
    """

    description: str
    unit: str
    higher_is_better: bool | None


METRICS: dict[str, MetricInfo] = {
    "accuracy": MetricInfo(
        "share of answers that are correct; of a trained probe, of test examples that it calls rightly",
        "1",
        True,
    ),
    "auroc": MetricInfo("probability that a true example outscores a false one, ties one half", "1", True),
    "auprc": MetricInfo(
        "average precision with true as the positive class; chance is the share of true examples", "1", True
    ),
    "aurc": MetricInfo("area under the risk-coverage curve, the mean error rate over coverages", "1", False),
    "eaurc": MetricInfo("AURC minus that of the best ranking at the same accuracy", "1", False),
    "accuracy_at_80": MetricInfo("accuracy among the 80% of examples scored highest", "1", True),
    "accuracy_at_90": MetricInfo("accuracy among the 90% of examples scored highest", "1", True),
    "accuracy_at_95": MetricInfo("accuracy among the 95% of examples scored highest", "1", True),
    **{
        f"risk_at_{percent}": MetricInfo(
            f"error rate among the {percent}% of examples scored highest", "1", False
        )
        for percent in (80, 90, 95)
    },
    "coverage_at_risk_10": MetricInfo(
        "largest share of examples, scored highest, of which at most 10% are wrong; without an interval, for it jumps",
        "1",
        True,
    ),
    "augrc": MetricInfo(
        "area under the generalized risk-coverage curve, the mean over coverages of errors accepted",
        "1",
        False,
    ),
    "prr": MetricInfo(
        "prediction-rejection ratio over all coverages, 1 for the best ranking and 0 for a random one",
        "1",
        True,
    ),
    "prr_f1": MetricInfo(
        "prediction-rejection ratio of the answers' token F1, 1 for the best ranking and 0 for a random one",
        "1",
        True,
    ),
    "ece": MetricInfo(
        "expected calibration error of the score as a probability, 15 bins of equal width", "1", False
    ),
    "ece_noise_floor": MetricInfo("mean ECE of labels drawn from the probabilities themselves", "1", None),
    "ece_debiased": MetricInfo("size of the gaps that gives the ECE found as often as not", "1", False),
    "calibration_p": MetricInfo(
        "share of label sets drawn from the probabilities themselves whose ECE is as large: a test of calibration",
        "1",
        None,
    ),
    "smooth_ece": MetricInfo(
        "calibration error smoothed by a kernel as wide as itself; without an interval, for that of the ECE tests it",
        "1",
        False,
    ),
    "ce2_debiased": MetricInfo(
        "root of the debiased mean squared gap of 15 bins of equal mass, 0 where chance explains it; no interval",
        "1",
        False,
    ),
    "brier": MetricInfo("mean squared difference of the score as a probability and the label", "1", False),
    "n": MetricInfo("number of examples evaluated", "examples", None),
    "n_unscored": MetricInfo(
        "number of examples that the probe gives no score; its AUROC and what else depends on scores is of the others",
        "examples",
        False,
    ),
    "unscored_share": MetricInfo("share of the answers that the probe gives no score", "1", False),
    "option_accuracy": MetricInfo(
        "share of questions whose right option has the highest log-probability", "1", True
    ),
    "option_accuracy_norm": MetricInfo(
        "share of questions whose right option has the highest log-probability by character of its text",
        "1",
        True,
    ),
    "option_true_mass": MetricInfo(
        "mean probability of a question's true options among all of them, by their texts (TruthfulQA's mc2)",
        "1",
        True,
    ),
    "letter_mass": MetricInfo(
        "mean probability of the options' letters together; little of it: the letters were not understood",
        "1",
        True,
    ),
    "n_judged": MetricInfo("number of answers that the second model was asked about", "examples", None),
    "judge_s": MetricInfo("seconds of asking the second model, those of earlier runs included", "s", False),
    "extraction_share": MetricInfo("share of answers in which there was something to judge", "1", True),
    "n_not_extracted": MetricInfo(
        "number of answers in which nothing was found to judge, which count as wrong", "examples", False
    ),
    "n_empty": MetricInfo("number of answers without text", "examples", False),
    "n_ended_stop": MetricInfo("number of answers that ended at a stop text", "examples", None),
    "n_ended_eos": MetricInfo("number of answers that the model ended itself", "examples", None),
    "n_ended_length": MetricInfo("number of answers that were cut at the longest length", "examples", False),
    "n_thoughts": MetricInfo("number of answers that the model thought about first", "examples", None),
    "n_thinking_tokens_mean": MetricInfo("mean length of a thought", "tokens", None),
    "n_without_answer": MetricInfo(
        "number of thoughts that did not end: no answer followed", "examples", False
    ),
    "n_correct": MetricInfo("number of examples whose label is true", "examples", None),
    "f1": MetricInfo(
        "mean token F1 of the answers, the best over each one's references; of a trained probe, harmonic mean of "
        "precision and recall",
        "1",
        True,
    ),
    "balanced_accuracy": MetricInfo(
        "mean of the shares of true and of false examples called rightly", "1", True
    ),
    "mcc": MetricInfo("Matthews correlation of a trained probe's calls with the labels", "1", True),
    "majority_accuracy": MetricInfo("accuracy of calling every test example by the larger class", "1", None),
    "precision": MetricInfo("share of true examples among those that the probe calls true", "1", True),
    "recall": MetricInfo("share of the true examples that the probe calls true", "1", True),
    "recall_at_1_fpr": MetricInfo("recall where at most 1% of the false examples are called true", "1", True),
    "within_conversation_auroc": MetricInfo(
        "probability that a true example outscores a false one of its own conversation, ties one half",
        "1",
        True,
    ),
    "text_auroc": MetricInfo("AUROC of the text baseline on the same split", "1", None),
    "text_chars_auroc": MetricInfo(
        "AUROC of a baseline of the texts' characters on the same split", "1", None
    ),
    "target_auroc": MetricInfo(
        "AUROC of the probe against what it learned in place of the labels: low semantic entropy", "1", True
    ),
    "control_auroc": MetricInfo("AUROC of the same probe on random labels, one a text", "1", None),
    "selectivity": MetricInfo("AUROC of the probe minus that of its control", "1", True),
    "ece_platt": MetricInfo("ECE of probabilities calibrated on validation by Platt's sigmoid", "1", False),
    "ece_isotonic": MetricInfo(
        "ECE of probabilities calibrated on validation by isotonic regression", "1", False
    ),
    "brier_platt": MetricInfo(
        "Brier score of probabilities calibrated on validation by Platt's sigmoid", "1", False
    ),
    "brier_isotonic": MetricInfo(
        "Brier score of probabilities calibrated on validation by isotonic regression", "1", False
    ),
    "auroc_fold_mean": MetricInfo("mean over folds of each one's own AUROC", "1", True),
    "auroc_fold_sd": MetricInfo("standard deviation over folds of each one's own AUROC", "1", None),
    "auroc_repeat_mean": MetricInfo("mean AUROC over divisions by several seeds", "1", True),
    "auroc_repeat_sd": MetricInfo(
        "standard deviation of the AUROC over divisions by several seeds", "1", None
    ),
    "accuracy_repeat_mean": MetricInfo("mean accuracy of calls over divisions by several seeds", "1", True),
    "accuracy_repeat_sd": MetricInfo(
        "standard deviation of the accuracy of calls over divisions by several seeds", "1", None
    ),
    "source_auroc_": MetricInfo("AUROC of the fold that leaves out the source", "1", True),
    "transfer_auroc_": MetricInfo("AUROC of the probe on another dataset,", "1", True),
    "layer": MetricInfo("layer of the probe, chosen on the validation split", "blocks", None),
    "joined_layers": MetricInfo("layers that the probe reads at once", "1", None),
    "threshold": MetricInfo("score above which the probe calls an example true", "activation", None),
    "nll_mean": MetricInfo(
        "mean over answers of the summed negative log-likelihood of their tokens", "nats", False
    ),
    "mean_nll_mean": MetricInfo(
        "mean over answers of their mean negative log-likelihood a token", "nats", False
    ),
    "perplexity_mean": MetricInfo("mean perplexity of the answers", "1", False),
    "n_tokens_mean": MetricInfo("mean number of tokens of the answers", "tokens", None),
    "tokens_per_s": MetricInfo("tokens generated a second while reading", "tokens/s", True),
    "examples_per_s": MetricInfo("examples read a second", "examples/s", True),
    "load_s": MetricInfo("time to load the model", "s", False),
    "read_s": MetricInfo("time to read the data set with the model loaded", "s", False),
    "peak_ram_gb": MetricInfo("highest resident memory of the process", "GB", False),
    "peak_gpu_gb_": MetricInfo("highest memory allocated on GPU", "GB", False),
    "train_loss": MetricInfo("mean loss on the training examples; step = epoch", "nats", False),
    "val_loss": MetricInfo("mean loss on the validation examples; step = epoch", "nats", False),
    "layer_auroc": MetricInfo("AUROC of the probe at one layer; step = layer", "1", True),
}
"""By metric name, in order of report. `peak_gpu_gb_` and `transfer_auroc_` are prefixes: a GPU's index or a dataset's
name follows."""

_TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "aurc": "AURC",
    "ece": "ECE",
    "ece_noise_floor": "ECE noise floor",
    "ece_debiased": "ECE debiased",
    "calibration_p": "p of calibration",
    "text_auroc": "AUROC of text",
    "text_chars_auroc": "AUROC of characters",
    "smooth_ece": "smooth ECE",
    "ce2_debiased": "debiased CE2",
    "mcc": "MCC",
    "augrc": "AUGRC",
    "prr": "PRR",
    "prr_f1": "PRR of F1",
    "brier": "Brier",
    "ece_platt": "ECE by Platt",
    "ece_isotonic": "ECE by isotonic",
    "brier_platt": "Brier by Platt",
    "brier_isotonic": "Brier by isotonic",
    "auroc_repeat_mean": "AUROC, mean of repeats",
    "auroc_repeat_sd": "AUROC, sd of repeats",
    "auroc_fold_mean": "AUROC, mean of folds",
    "auroc_fold_sd": "AUROC, sd of folds",
    "control_auroc": "AUROC of control",
    "within_conversation_auroc": "AUROC within conversation",
    "load_s": "load s",
    "read_s": "read s",
    "tokens_per_s": "tokens/s",
    "peak_ram_gb": "peak RAM GB",
}
_OF_ANSWERS = {"accuracy": "answer accuracy", "f1": "answer F1"}
_OF_PROBE = {"accuracy": "probe accuracy", "f1": "probe F1"}

_INTERVAL_ENDS = {"_ci_low": "lower", "_ci_high": "upper"}


def metric_info(name: str) -> MetricInfo:
    """Look a metric up; `peak_gpu_gb_<i>`, `<judge>_auroc`, `<metric>_ci_low` and `<metric>_ci_high` are understood.

    Raises:
        KeyError: no such metric; the message names the closest ones.
    """
    for suffix, end in _INTERVAL_ENDS.items():
        if name.endswith(suffix):
            info = metric_info(name.removesuffix(suffix))
            return replace(info, description=f"{end} end of the 95% interval of: {info.description}")
    if prefixed := re.fullmatch(r"(peak_gpu_gb_)(\d+)|(transfer_auroc_|source_auroc_)(.+)", name):
        prefix, rest = filter(None, prefixed.groups())
        info = METRICS[prefix]
        return replace(info, description=f"{info.description} {rest}")
    if name not in METRICS and (beside := re.fullmatch(r"([a-z][a-z0-9_]*)_auroc", name)):
        return MetricInfo(f"AUROC by the judge {beside[1]}, which judges.parquet describes", "1", True)
    if name not in METRICS or name.endswith("_"):
        close = get_close_matches(name, METRICS) or list(METRICS)
        raise KeyError(f"no metric is called {name!r}; close: {', '.join(close)}")
    return METRICS[name]


def is_of_probe(metrics: Collection[str]) -> bool:
    """Whether the accuracy and F1 among these metrics are those of a trained probe's calls, and not of answers."""
    return "precision" in metrics


def metric_title(name: str, *, of_probe: bool) -> str:
    """What a metric is called where cells of different probes stand side by side.

    Args:
        name: of the metric.
        of_probe: as `is_of_probe` of the cell; its accuracy is another quantity than that of answers, and so is its F1.
    """
    if name.startswith("transfer_auroc_"):
        return f"AUROC on {name.removeprefix('transfer_auroc_')}"
    if name.startswith("source_auroc_"):
        return f"AUROC on source {name.removeprefix('source_auroc_')}"
    titles = _TITLES | (_OF_PROBE if of_probe else _OF_ANSWERS)
    return titles.get(name, name.replace("_", " "))
