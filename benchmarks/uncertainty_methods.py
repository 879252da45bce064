"""All judges of an answer by one library, in a process of its own.

Started by ``uncertainty.py`` with any interpreter: no method imports what another needs.

    python uncertainty_methods.py METHOD FOLDER WORKLOAD OUT

METHOD is ``ours``, ``polygraph`` (LM-Polygraph's own calculators and estimators), or ``polygraph_values`` (its
estimators on the tokens, samples and entailments of ours, which are the WORKLOAD then). FOLDER holds the folders
``checkpoint``, ``classifier`` (natural language inference) and ``cross_encoder``. Else WORKLOAD is JSON: ``questions``,
``prompts`` (texts), ``shots``, ``samples``, ``tokens``. Writes OUT, JSON.
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

CONTRADICTS, NEUTRAL, ENTAILS = range(3)  # as the classifier's classes are numbered
BATCH = 8
"""Questions that LM-Polygraph takes at once: its ten samples of each are ten copies of the prompt."""


def ours(folder: Path, workload: dict[str, Any], out: Path) -> dict[str, Any]:
    """One cell of ``probe=judges``: every reading made once, every judge on it."""
    from probegrid.cell.answer_probe import scoring_of
    from probegrid.cell.evidence import Asked, evidence_of
    from probegrid.cell.gather import entailments_of, gather, similarities_of
    from probegrid.cell.others import other_scores
    from probegrid.cell.prepare import prepare
    from probegrid.compose import compose_cell
    from probegrid.models.pool import ModelPool
    from probegrid.probes import AnswerProbe
    from probegrid.progress import Progress
    from probegrid.readings.session import ModelSession

    overrides = [
        *("model=custom", f"model.path={folder / 'checkpoint'}", "model.dtype=float32", "probe=judges"),
        *(f"store_dir={out.with_suffix('.store')}", f"dataset.num_samples={len(workload['questions'])}"),
        *(f"prompt.num_few_shot={workload['shots']}", f"decoding.max_new_tokens={workload['tokens']}"),
        f"decoding.num_generations={workload['samples']}",
        *(f"probe.entailment={folder / 'classifier'}", f"probe.similarity={folder / 'cross_encoder'}"),
    ]
    cell = prepare(compose_cell(overrides))
    assert cell.model is not None
    assert isinstance(cell.probe, AnswerProbe)
    with Progress() as progress, ModelPool() as pool:
        model = cell.model
        session = ModelSession(cell.config, model.checkpoint, model.tokenizer, None, pool, progress)
        session.open()
        clock, cpu = time.perf_counter(), time.process_time()
        gathered = gather(cell, session)
        answers = gathered.answers
        assert answers is not None
        with (
            entailments_of(cell, session, answers) as relates,
            similarities_of(cell, session, answers) as alike,
        ):
            asked = Asked(relates, alike)
            own = cell.probe.score(scoring_of(cell, gathered, relates))
            others = other_scores(cell, gathered, asked)
            seconds, cpu_s = time.perf_counter() - clock, time.process_time() - cpu
            evidence = evidence_of(cell, gathered, asked)
    readings: dict[str, float] = {}
    for each in others.took:
        readings |= {name: max(s, readings.get(name, 0.0)) for name, s in each.readings.items()}
    return {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "judges": len(others.columns),
        "readings": readings,
        "formulas": {each.judge.name: each.own_s for each in others.took},
        "scores": {"gnll": own.own, **others.columns},
        "questions": workload["questions"],
        "prompt_ids": [list(prompt.token_ids) for prompt in answers.reading.prompts],
        "generations": [
            [{"text": one.text, "ids": one.token_ids, "logprobs": one.token_logprobs} for one in found]
            for found in answers.reading.generations
        ],
        "relations": [_listed(each.relations) for each in evidence],
        "similarities": [_listed(each.similarities) for each in evidence],
        "relevance": [[_listed(row) for row in each.relevance] for each in evidence],
        "states": [_listed(each.states) for each in evidence],
    }


def _listed(values: Any) -> Any:
    return None if values is None else np.asarray(values).tolist()


def polygraph(folder: Path, workload: dict[str, Any], out: Path) -> dict[str, Any]:
    """LM-Polygraph's calculators that its judges need, and their estimators, a batch of questions at a time."""
    from lm_polygraph import stat_calculators as make
    from lm_polygraph.stat_calculators.cross_encoder_similarity import CrossEncoderSimilarityMatrixCalculator
    from lm_polygraph.stat_calculators.entropy import EntropyCalculator
    from lm_polygraph.stat_calculators.greedy_alternatives_nli import GreedyAlternativesNLICalculator
    from lm_polygraph.stat_calculators.greedy_cross_encoder_similarity import (
        GreedyCrossEncoderSimilarityMatrixCalculator,
    )
    from lm_polygraph.stat_calculators.greedy_probs import GreedyProbsCalculator
    from lm_polygraph.stat_calculators.greedy_semantic_matrix import ConcatGreedySemanticMatrixCalculator
    from lm_polygraph.stat_calculators.prompt import PromptCalculator
    from lm_polygraph.stat_calculators.sample import SamplingGenerationCalculator
    from lm_polygraph.stat_calculators.semantic_classes import SemanticClassesCalculator
    from lm_polygraph.stat_calculators.semantic_matrix import SemanticMatrixCalculator

    model, judge = _polygraph_model(folder), _nli(folder)
    crossing = str(folder / "cross_encoder")
    calculators = [
        GreedyProbsCalculator(output_attentions=True),
        EntropyCalculator(),
        SamplingGenerationCalculator(workload["samples"]),
        SemanticMatrixCalculator(judge),
        SemanticClassesCalculator(),
        ConcatGreedySemanticMatrixCalculator(judge),
        CrossEncoderSimilarityMatrixCalculator(cross_encoder_name=crossing),
        GreedyCrossEncoderSimilarityMatrixCalculator(cross_encoder_name=crossing),
        GreedyAlternativesNLICalculator(judge),
        make.AttentionForwardPassCalculator(),
        PromptCalculator(),
    ]
    model.model.set_attn_implementation("eager")
    times: dict[str, float] = {}
    clock, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(workload["prompts"]), BATCH):
        texts = workload["prompts"][start : start + BATCH]
        asked = workload["questions"][start : start + BATCH]
        stats: dict[str, Any] = {"input_texts": asked, "no_fewshot_input_texts": asked, "model": model}
        for each in calculators:
            began = time.process_time()
            stats |= each(stats, texts, model, workload["tokens"])
            name = type(each).__name__
            times[name] = times.get(name, 0.0) + time.process_time() - began
        for name, estimator in _estimators().items():
            began = time.process_time()
            estimator(stats)
            times[name] = times.get(name, 0.0) + time.process_time() - began
    return {
        "seconds": time.perf_counter() - clock,
        "cpu_s": time.process_time() - cpu,
        "judges": len(_estimators()),
        "times": times,
    }


def _estimators() -> dict[str, Callable[[dict[str, Any]], Any]]:
    """The judges that both have."""
    from lm_polygraph import estimators as make
    from lm_polygraph.estimators.attention_score import AttentionScore
    from lm_polygraph.estimators.kernel_language_entropy import KernelLanguageEntropy
    from lm_polygraph.estimators.rauq import RAUQ
    from lm_polygraph.estimators.semantic_density import SemanticDensity

    graphs = {
        f"{name}_{kind}": owner(**settings)
        for name, owner in (
            ("DegMat", make.DegMat),
            ("EigValLaplacian", make.EigValLaplacian),
            ("Eccentricity", make.Eccentricity),
        )
        for kind, settings in (
            ("jaccard", {"similarity_score": "Jaccard_score"}),
            ("entail", {"affinity": "entail"}),
            ("contra", {"affinity": "contra"}),
        )
    }
    return {
        "MaximumSequenceProbability": make.MaximumSequenceProbability(),
        "Perplexity": make.Perplexity(),
        "MeanTokenEntropy": make.MeanTokenEntropy(),
        "SelfCertainty": make.SelfCertainty(),
        "ClaimConditionedProbability": make.ClaimConditionedProbability(),
        "RAUQ": RAUQ(),
        "RAUQ_entropy": RAUQ(use_entropy=True),
        "AttentionScore": AttentionScore(gen_only=True),
        "MonteCarloSequenceEntropy": make.MonteCarloSequenceEntropy(),
        "MonteCarloNormalizedSequenceEntropy": make.MonteCarloNormalizedSequenceEntropy(),
        "SemanticEntropy": make.SemanticEntropy(),
        "SemanticEntropyEmpirical": make.SemanticEntropy(class_probability_estimation="frequency"),
        "LexicalSimilarity": make.LexicalSimilarity(metric="rougeL"),
        "NumSemSets": make.NumSemSets(),
        **graphs,
        "KernelLanguageEntropy": KernelLanguageEntropy(),
        "SemanticDensity": SemanticDensity(),
        "TokenSAR": make.TokenSAR(),
        "SentenceSAR": make.SentenceSAR(),
        "SAR": make.SAR(),
        "CocoaMSP": make.CocoaMSP(),
        "CocoaPPL": make.CocoaPPL(),
        "CocoaMTE": make.CocoaMTE(),
        "EigenScore": make.EigenScore(),
        "PTrue": make.PTrue(),
    }


def polygraph_values(folder: Path, workload: dict[str, Any], out: Path) -> dict[str, Any]:
    """LM-Polygraph's estimators on what ours read; distributions and attention by a plain forward pass of its own."""
    from lm_polygraph.stat_calculators.entropy import EntropyCalculator
    from lm_polygraph.stat_calculators.greedy_alternatives_nli import GreedyAlternativesNLICalculator
    from lm_polygraph.stat_calculators.semantic_classes import SemanticClassesCalculator

    model = _polygraph_model(folder)
    model.model.set_attn_implementation("eager")
    kept = [row for row, found in enumerate(workload["generations"]) if all(one["ids"] for one in found)]
    found = [workload["generations"][row] for row in kept]
    greedy, samples = [row[0] for row in found], [row[1:] for row in found]
    relations = np.array([workload["relations"][row] for row in kept])
    similarities = np.array([workload["similarities"][row] for row in kept])
    relevance = [[np.array(one) for one in workload["relevance"][row]] for row in kept]
    stats: dict[str, Any] = {
        "model": model,
        "input_texts": [workload["questions"][row] for row in kept],
        "greedy_texts": [one["text"] for one in greedy],
        "greedy_tokens": [one["ids"] for one in greedy],
        "greedy_log_likelihoods": [one["logprobs"] for one in greedy],
        "sample_texts": [[one["text"] for one in row] for row in samples],
        "sample_tokens": [[one["ids"] for one in row] for row in samples],
        "sample_log_likelihoods": [[one["logprobs"] for one in row] for row in samples],
        "sample_log_probs": [[sum(one["logprobs"]) for one in row] for row in samples],
        "semantic_matrix_entail": relations[:, 1:, 1:, ENTAILS],
        "semantic_matrix_contra": relations[:, 1:, 1:, CONTRADICTS],
        "semantic_matrix_classes": relations[:, 1:, 1:].argmax(-1),
        "entailment_id": ENTAILS,
        "concat_greedy_semantic_matrix_contra_forward": relations[:, 0, 1:, CONTRADICTS],
        "concat_greedy_semantic_matrix_neutral_forward": relations[:, 0, 1:, NEUTRAL],
        "sample_sentence_similarity": similarities[:, 1:, 1:],
        "greedy_sentence_similarity": similarities[:, 0, 1:],
        "token_similarity": [1 - row[0] for row in relevance],
        "sample_token_similarity": [[1 - one for one in row[1:]] for row in relevance],
        "sample_embeddings": np.array([workload["states"][row] for row in kept]),
    }
    stats |= _forward(model, [workload["prompt_ids"][row] for row in kept], [one["ids"] for one in greedy])
    for calculator in (
        EntropyCalculator(),
        SemanticClassesCalculator(),
        GreedyAlternativesNLICalculator(_nli(folder)),
    ):
        stats |= calculator(stats, stats["input_texts"], model)
    estimators = {name: each for name, each in _estimators().items() if name != "PTrue"}
    return {
        "kept": kept,
        "values": {name: np.asarray(each(stats), dtype=float).tolist() for name, each in estimators.items()},
    }


def _forward(model: Any, prompts: list[list[int]], answers: list[list[int]]) -> dict[str, Any]:
    """Distributions, likeliest tokens and attention at each answer's tokens, as LM-Polygraph's calculator has them."""
    found: dict[str, list[Any]] = {
        name: []
        for name in (
            "greedy_log_probs",
            "greedy_tokens_alternatives",
            "attention_all",
            "forwardpass_attention_weights",
        )
    }
    for prompt, answer in zip(prompts, answers, strict=True):
        with torch.no_grad():
            output = model.model(torch.tensor([[*prompt, *answer]]), output_attentions=True)
        start, length = len(prompt), len(answer)
        logprobs = output.logits[0, start - 1 : start - 1 + length].float().log_softmax(-1).numpy()
        found["greedy_log_probs"].append(list(logprobs))
        likeliest = [[int(token) for token in np.argsort(-row, kind="stable")[:10]] for row in logprobs]
        found["greedy_tokens_alternatives"].append(
            [
                sorted(((token, float(row[token])) for token in tokens), key=lambda pair: pair[0] != written)
                for row, tokens, written in zip(logprobs, likeliest, answer, strict=True)
            ]
        )
        attention = torch.cat(output.attentions).numpy()  # [layers, heads, T, T]
        of_answer = np.zeros((attention.shape[0] * attention.shape[1], length, length))
        flat = attention.reshape(-1, *attention.shape[2:])
        for step in range(1, length):  # the step that writes a token reads the one before
            of_answer[:, step, :step] = flat[:, start + step - 1, start : start + step]
        found["attention_all"].append(of_answer)
        found["forwardpass_attention_weights"].append(attention)
    return found


def _polygraph_model(folder: Path) -> Any:
    from lm_polygraph.utils.generation_parameters import GenerationParameters
    from lm_polygraph.utils.model import WhiteboxModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint = str(folder / "checkpoint")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
    parameters = GenerationParameters(top_k=0, allow_newlines=True)
    return WhiteboxModel(model, tokenizer, checkpoint, "CausalLM", parameters)


def _nli(folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    return SimpleNamespace(
        deberta=AutoModelForSequenceClassification.from_pretrained(folder / "classifier").eval(),
        deberta_tokenizer=AutoTokenizer.from_pretrained(folder / "classifier"),
        device="cpu",
        batch_size=10,
    )


def main() -> None:
    """Run the method named on the command line."""
    method, folder, workload, out = sys.argv[1:]
    torch.manual_seed(0)
    methods = {"ours": ours, "polygraph": polygraph, "polygraph_values": polygraph_values}
    found = methods[method](Path(folder), json.loads(Path(workload).read_text()), Path(out))
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
