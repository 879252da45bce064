"""Entropies of samples against numpy and scipy, and what they must be by definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import entropy

from probegrid.judges.entropies import discrete_semantic_entropy, monte_carlo_entropy, semantic_entropy

LOGPROBS = st.floats(-200, 0)
SAMPLES = st.lists(st.tuples(LOGPROBS, st.integers(0, 3)), min_size=1, max_size=12)


@given(SAMPLES)
def test_semantic_entropy_is_that_of_the_clusters_share_of_likelihood(
    samples: list[tuple[float, int]],
) -> None:
    means, clusters = np.array([mean for mean, _ in samples]), np.array([cluster for _, cluster in samples])
    logs = np.array([logsumexp(means[clusters == cluster]) for cluster in np.unique(clusters)])
    expected = entropy(np.exp(logs - logsumexp(logs)))
    assert semantic_entropy(means.tolist(), clusters.tolist()) == pytest.approx(expected, abs=1e-9)


@given(SAMPLES)
def test_discrete_semantic_entropy_is_that_of_the_counts(samples: list[tuple[float, int]]) -> None:
    clusters = [cluster for _, cluster in samples]
    assert discrete_semantic_entropy(clusters) == pytest.approx(
        entropy(np.unique(clusters, return_counts=True)[1])
    )


def test_known_values() -> None:
    assert semantic_entropy([-1.0] * 4, [0, 0, 0, 0]) == 0
    assert semantic_entropy([-1.0] * 4, [0, 1, 2, 3]) == pytest.approx(math.log(4))
    assert semantic_entropy([math.log(0.6), math.log(0.2)], [0, 1]) == pytest.approx(
        -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    )
    assert discrete_semantic_entropy([0, 0, 1, 1]) == pytest.approx(math.log(2))
    assert monte_carlo_entropy([-1.0, -2.0, -6.0]) == 3.0


def test_answers_of_no_or_of_vanishing_likelihood_give_finite_numbers() -> None:
    assert semantic_entropy([0.0, -0.5], [0, 1]) == pytest.approx(entropy([1, math.exp(-0.5)]))
    assert semantic_entropy([-5000.0, -5000.0], [0, 1]) == pytest.approx(math.log(2))
    assert semantic_entropy([0.0, -5000.0], [0, 1]) == 0
