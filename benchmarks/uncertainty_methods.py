"""Semantic entropy by one method, in a process of its own.

Started by ``uncertainty.py`` with any interpreter: no method imports what another needs.

    python uncertainty_methods.py METHOD CHECKPOINT CLASSIFIER WORKLOAD OUT

METHOD is ``ours``, ``polygraph`` (LM-Polygraph's own sampling, entailment and estimator), or ``polygraph_values``
(LM-Polygraph's estimators on the tokens that ours wrote, which are the WORKLOAD then). Else WORKLOAD is JSON:
``questions``, ``prompts`` (texts), ``shots``, ``samples``, ``tokens``. Writes OUT, JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

POLYGRAPH_PROMPT = (
    "Question: {q}\n Possible answer:{a}\n "
    "Is the possible answer:\n (A) True\n (B) False\n The possible answer is:"
)
"""LM-Polygraph's P(True), and the token whose probability it is."""
POLYGRAPH_TRUE = "True"


def ours(checkpoint: str, classifier: str, workload: dict[str, Any], out: Path) -> dict[str, Any]:
    """The project's own code: greedy answers and samples from one prefill, entailment of the pairs that are needed."""
    from probegrid import data
    from probegrid.compose import compose_cell
    from probegrid.models.checkpoint import find_checkpoint
    from probegrid.models.load import load_model
    from probegrid.models.request import ModelRequest
    from probegrid.probes import Scoring
    from probegrid.progress import Progress
    from probegrid.readings.session import Respondent
    from probegrid.schema import QuantizationMethod

    overrides = [
        *(
            "model=custom",
            f"model.path={checkpoint}",
            "model.dtype=float32",
            f"store_dir={out.with_suffix('.store')}",
        ),
        *(f"dataset.num_samples={len(workload['questions'])}", f"prompt.num_few_shot={workload['shots']}"),
        *(f"decoding.max_new_tokens={workload['tokens']}", "probe=semantic_entropy"),
        *(f"decoding.num_generations={workload['samples']}", f"probe.entailment={classifier}"),
    ]
    config = compose_cell(overrides).config
    found = find_checkpoint(config.model)
    loaded = load_model(ModelRequest(found, config.model, QuantizationMethod.none))
    respondent, questions = Respondent(config, found, lambda: loaded, Progress()), data.load(config.dataset)
    started = time.perf_counter()
    reading = respondent.answer(questions)
    scores = config.probe.score(Scoring(questions, reading, respondent))
    seconds = time.perf_counter() - started
    asked = [
        POLYGRAPH_PROMPT.format(q=question, a=answer.text)
        for question, answer in zip(workload["questions"], reading.greedy, strict=True)
    ]
    (true,) = respondent.tokenizer(POLYGRAPH_TRUE, add_special_tokens=False)["input_ids"]
    return {
        "seconds": seconds,
        "entailment_s": scores.read_s,
        "questions": workload["questions"],
        "prompts": [prompt.text for prompt in reading.prompts],
        "generations": [
            [{"text": g.text, "ids": g.token_ids, "logprobs": g.token_logprobs} for g in of_question]
            for of_question in reading.generations
        ],
        "scores": {"semantic_entropy": scores.own, **scores.others},
        "p_true": [row[0] for row in respondent.choose(respondent.tokenize(asked), [true]).logprobs],
    }


def polygraph(checkpoint: str, classifier: str, workload: dict[str, Any], out: Path) -> dict[str, Any]:
    """LM-Polygraph's calculators that its semantic entropy needs: no greedy answer, all prompts in one batch."""
    from lm_polygraph.stat_calculators.sample import SamplingGenerationCalculator

    model, texts = _polygraph_model(checkpoint), workload["prompts"]
    entropy = _polygraph_entropy(classifier)
    started = time.perf_counter()
    sampled = SamplingGenerationCalculator(workload["samples"])({}, texts, model, workload["tokens"])
    sampled_s = time.perf_counter() - started
    scores = entropy(sampled, texts, model)[0]
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "entailment_s": seconds - sampled_s, "semantic_entropy": scores.tolist()}


def polygraph_values(checkpoint: str, classifier: str, workload: dict[str, Any], out: Path) -> dict[str, Any]:
    """LM-Polygraph's estimators on the tokens and log-probabilities that ours generated."""
    from lm_polygraph import estimators
    from lm_polygraph.stat_calculators.prompt import PromptCalculator

    model = _polygraph_model(checkpoint)
    greedy = [found[0] for found in workload["generations"]]
    samples = [found[1:] for found in workload["generations"]]
    stats: dict[str, Any] = {
        "input_texts": workload["questions"],
        "greedy_texts": [answer["text"] for answer in greedy],
        "greedy_log_likelihoods": [answer["logprobs"] for answer in greedy],
        "sample_tokens": [[sample["ids"] for sample in found] for found in samples],
        "sample_log_probs": [[sum(sample["logprobs"]) for sample in found] for found in samples],
        "sample_texts": [
            [f"{question} {sample['text']}" for sample in found]
            for question, found in zip(workload["questions"], samples, strict=True)
        ],
    }
    entropies, classes = _polygraph_entropy(classifier)(stats, workload["prompts"], model)
    stats["semantic_classes_entail"] = classes
    stats |= PromptCalculator()(stats, workload["prompts"], model)
    frequency = estimators.SemanticEntropy(class_probability_estimation="frequency")
    return {
        "SemanticEntropy": entropies.tolist(),
        "SemanticEntropyEmpirical": frequency(stats).tolist(),
        "MonteCarloSequenceEntropy": estimators.MonteCarloSequenceEntropy()(stats).tolist(),
        "MonteCarloNormalizedSequenceEntropy": estimators.MonteCarloNormalizedSequenceEntropy()(
            stats
        ).tolist(),
        "MaximumSequenceProbability": estimators.MaximumSequenceProbability()(stats).tolist(),
        "Perplexity": estimators.Perplexity()(stats).tolist(),
        "PTrue": estimators.PTrue()(stats).tolist(),
        "classes": [
            [of_question[sample] for sample in range(len(of_question))]
            for of_question in classes["sample_to_class"].values()
        ],
    }


def _polygraph_model(checkpoint: str) -> Any:
    from lm_polygraph.utils.generation_parameters import GenerationParameters
    from lm_polygraph.utils.model import WhiteboxModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
    parameters = GenerationParameters(top_k=0, allow_newlines=True)
    return WhiteboxModel(model, tokenizer, checkpoint, "CausalLM", parameters)


def _polygraph_entropy(classifier: str) -> Callable[[dict[str, Any], list[str], Any], tuple[np.ndarray, Any]]:
    """Entailment of all pairs of samples, classes, entropy; with any sequence classifier, in LM-Polygraph's batches."""
    from lm_polygraph.estimators import SemanticEntropy
    from lm_polygraph.stat_calculators.semantic_classes import SemanticClassesCalculator
    from lm_polygraph.stat_calculators.semantic_matrix import SemanticMatrixCalculator
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    judge = SimpleNamespace(
        deberta=AutoModelForSequenceClassification.from_pretrained(classifier).eval(),
        deberta_tokenizer=AutoTokenizer.from_pretrained(classifier),
        device="cpu",
        batch_size=10,
    )

    def entropy(stats: dict[str, Any], texts: list[str], model: Any) -> tuple[np.ndarray, Any]:
        known = stats | SemanticMatrixCalculator(judge)(stats, texts, model)
        classes = SemanticClassesCalculator()(known, texts, model)["semantic_classes_entail"]
        return SemanticEntropy()(known | {"semantic_classes_entail": classes}), classes

    return entropy


def main() -> None:
    """Run the method named on the command line."""
    method, checkpoint, classifier, workload, out = sys.argv[1:]
    torch.manual_seed(0)
    methods = {"ours": ours, "polygraph": polygraph, "polygraph_values": polygraph_values}
    found = methods[method](checkpoint, classifier, json.loads(Path(workload).read_text()), Path(out))
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
