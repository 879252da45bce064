"""The contract of a judge, on made-up evidence that holds what it declared and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from probegrid.inference.generation import Generation
from probegrid.judges import Evidence, Judge, Read
from probegrid.judges.asked import P_TRUE, P_TRUE_HINT, P_TRUE_ZERO, VERBALIZED, VERBALIZED_TOP_K
from probegrid.readings.token_steps import TokenSteps

QUESTIONS, SAMPLES, LIKELIEST = 12, 5, 4
_WORDS = ("oboe", "tuba", "a horn", "the horn", "")


def check_judge(judge: Judge) -> None:
    """Hold a judge to what every judge promises.

    It says what it is, needs no more than it declared, gives a finite number or none, and the same each time.

    Raises:
        AssertionError: it does not hold.
    """
    assert judge.description, "its docstring does not say what it is"
    found = [make_evidence(seed) for seed in range(QUESTIONS)]
    wanted = [_only(each, judge) for each in found]
    scores = [judge.score(each) for each in wanted]
    assert not any(map(math.isinf, scores)), "a score is infinite"
    again = [judge.score(each) for each in wanted]
    assert np.array_equal(scores, again, equal_nan=True), "it scores the same evidence differently"
    whole = [judge.score(each) for each in found]
    assert np.array_equal(scores, whole, equal_nan=True), "its score depends on what it did not declare"
    assert len({score for score in scores if not math.isnan(score)}) > 1, "it scores all questions alike"


def make_evidence(seed: int) -> Evidence:
    """Evidence that holds everything, of greedy answer and samples that say one of a few things."""
    generator = np.random.default_rng(seed)
    generations = [_generation(generator) for _ in range(1 + SAMPLES)]
    texts = [one.text.removeprefix("a ").removeprefix("the ") for one in generations]
    shares = generator.dirichlet(np.ones(3), size=(1 + SAMPLES, 1 + SAMPLES))
    alike = generator.random((1 + SAMPLES, 1 + SAMPLES))
    for row, one in enumerate(texts):
        for column, other in enumerate(texts):
            if one == other:
                shares[row, column] = (0, 0, 1)
                alike[row, column] = 1
    length = max(1, len(generations[0].token_ids))
    p = generator.dirichlet(np.ones(50), size=length)
    return Evidence(
        question="Who plays?",
        greedy=generations[0],
        samples=tuple(generations[1:]),
        same_text=tuple(texts),
        clusters=tuple(texts[1:].index(text) for text in texts[1:]),
        relations=shares,
        similarities=(alike + alike.T) / 2,
        relevance=[generator.random(max(1, len(one.token_ids))) for one in generations],
        steps=TokenSteps(
            entropies=-(p * np.log(p)).sum(1),
            divergences=-np.log(p).mean(1) - math.log(50),
            top_ids=np.argsort(-p, axis=1)[:, :LIKELIEST],
            top_logprobs=np.log(-np.sort(-p, axis=1)[:, :LIKELIEST]),
            vocabulary=50,
            layers=(1, 2),
            attention=generator.random((2, length - 1)),
            middle_attention=np.log(generator.random(length - 1)),
        ),
        alternatives=generator.dirichlet(np.ones(3), size=(length, LIKELIEST, 2)),
        states=generator.normal(size=(SAMPLES, 8)),
        options=tuple(np.log(generator.dirichlet(np.ones(4)))),
        asked={
            name: tuple(np.log(generator.dirichlet(np.ones(3))[:2]))
            for name in (P_TRUE, P_TRUE_HINT, P_TRUE_ZERO)
        },
        said={
            name: f"{generator.random():.2f}" if seed else "surely" for name in (VERBALIZED, VERBALIZED_TOP_K)
        },
    )


def _generation(generator: np.random.Generator) -> Generation:
    text = str(generator.choice(_WORDS))
    length = 0 if not text else int(generator.integers(2, 6))
    logprobs = tuple(-generator.exponential(size=length))
    ids = tuple(generator.integers(0, 50, size=length).tolist())
    first = logprobs[0] if logprobs else -1.0
    return Generation(ids, logprobs, text, length + 1, float(generator.random()), first, "stop")


def _only(evidence: Evidence, judge: Judge) -> Evidence:
    """What a judge declared of it; the greedy answer is always there."""
    reads = judge.reads
    kept = replace(
        evidence,
        samples=evidence.samples if Read.samples in reads else (),
        same_text=evidence.same_text if Read.samples in reads else evidence.same_text[:1],
        clusters=evidence.clusters if Read.clusters in reads else (),
        relations=evidence.relations if Read.relations in reads else None,
        similarities=evidence.similarities if Read.similarities in reads else None,
        relevance=evidence.relevance if Read.relevance in reads else evidence.relevance[:1],
        steps=evidence.steps if Read.steps in reads else None,
        alternatives=evidence.alternatives if Read.alternatives in reads else None,
        states=evidence.states if Read.states in reads else None,
        options=evidence.options if Read.options in reads else (),
        asked={name: found for name, found in evidence.asked.items() if name == judge.asks},
        said={name: found for name, found in evidence.said.items() if name == judge.asks},
    )
    if kept.steps is not None and Read.attention not in reads:
        nothing = np.empty((0, kept.steps.attention.shape[1]))
        kept = replace(
            kept, steps=replace(kept.steps, layers=(), attention=nothing, middle_attention=np.empty(0))
        )
    return kept
