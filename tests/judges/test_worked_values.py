"""Every formula against worked values that official code, LM-Polygraph or scikit-learn gave on the same numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from probegrid.cell.options import ScoredOptions
from probegrid.data.example import Question
from probegrid.inference.generation import Generation
from probegrid.judges import Evidence, all_judges
from probegrid.judges import entropies as found
from probegrid.judges.asked import share_of_first
from probegrid.judges.graphs import (
    eigenvalue_sum,
    entailing,
    heat_entropy,
    jaccard,
    lacking_degree,
    not_contradicting,
    spread,
)
from probegrid.judges.meanings import contradicted, density, linked_sets
from probegrid.judges.relevance import sentence_relevance, token_relevance
from probegrid.judges.samples import mean_rouge_l
from probegrid.judges.states import mean_log_eigenvalue
from probegrid.judges.tokens import claim_conditioned, recurrent
from probegrid.readings.options import OptionReading
from probegrid.readings.token_steps import TokenSteps
from probegrid.schema import OptionScores

JUDGES = all_judges()
S4 = [[-0.1, -0.2], [-0.5], [-0.3, -0.3, -0.6], [-1, -0.4]]
CLUSTERS = (0, 0, 1, 2)
T3 = ["the red big car", "the red car", "a blue car"]
E = np.array([[0.98, 0.9, 0.2, 0.1], [0.8, 0.97, 0.3, 0.1], [0.1, 0.2, 0.99, 0.7], [0.05, 0.1, 0.9, 0.98]])
C = np.array([[0.01, 0.05, 0.6, 0.8], [0.1, 0.01, 0.5, 0.7], [0.7, 0.6, 0.01, 0.1], [0.9, 0.8, 0.05, 0.01]])
AS_GIVEN = np.stack([C, 1 - E - C, E], -1)
RELATIONS = AS_GIVEN.copy()
RELATIONS[range(4), range(4)] = (0, 0, 1)


def answer(logprobs: list[float], text: str = "x") -> Generation:
    return Generation(tuple(range(len(logprobs))), tuple(logprobs), text, len(logprobs), 0.0, -9.0, "stop")


def of_samples(logprobs: list[list[float]], texts: list[str] | None = None, **more: object) -> Evidence:
    texts = texts or [str(number) for number in range(len(logprobs))]
    samples = tuple(answer(row, text) for row, text in zip(logprobs, texts, strict=True))
    return Evidence("q?", answer([-0.1]), samples, **more)  # type: ignore[arg-type]


def of_greedy(probabilities: list[float], steps: TokenSteps | None = None) -> Evidence:
    return Evidence("q?", answer([math.log(p) for p in probabilities]), steps=steps)


def steps_of(rows: list[list[float]]) -> TokenSteps:
    """As the reading has them, of whole distributions."""
    p = np.array(rows)
    ordered = -np.sort(-p, axis=1)
    return TokenSteps(
        entropies=-(p * np.log(p)).sum(1),
        divergences=-np.log(p).mean(1) - math.log(p.shape[1]),
        top_ids=np.argsort(-p, axis=1),
        top_logprobs=np.log(ordered),
        layers=(),
        attention=np.empty((0, len(rows) - 1)),
        middle_attention=np.empty(0),
        vocabulary=p.shape[1],
    )


def near(value: float) -> object:
    return pytest.approx(value, abs=1.5e-6)


def test_a1_to_a6_entropies_of_samples() -> None:
    evidence = of_samples(S4, clusters=CLUSTERS)
    assert found.discrete_semantic_entropy([0, 1, 2, 1]) == near(1.039721)
    assert found.discrete_semantic_entropy([0] * 6 + [1] * 3 + [2]) == near(0.897946)
    assert found.semantic_negentropy([0, 0, 0, 1, 2]) == near(0.409564)
    assert JUDGES["semantic_entropy"](evidence) == near(0.988764)
    assert found.semantic_entropy(evidence.log_sums.tolist(), CLUSTERS) == near(0.800216)
    assert found.polygraph_semantic_entropy(evidence.log_sums.tolist(), CLUSTERS) == near(0.500931)
    assert found.kuhn_semantic_entropy(evidence.log_means.tolist(), CLUSTERS) == near(0.238873)
    assert JUDGES["predictive_entropy"](evidence) == near(0.85)
    assert JUDGES["length_normalized_entropy"](evidence) == near(0.4375)
    assert JUDGES["num_semantic_sets"](evidence) == 3


def test_a3b_and_a4_what_others_make_of_the_same_clusters() -> None:
    """LM-Polygraph's direct estimate, and Kuhn's shift of 5, by the masses that our estimators take."""
    evidence = of_samples(S4, clusters=CLUSTERS)
    sums = evidence.log_sums
    members = [[sums[row] for row, each in enumerate(CLUSTERS) if each == one] for one in range(3)]
    masses = [-found.polygraph_semantic_entropy(each, [0] * len(each)) for each in members]
    assert -sum(masses[one] * math.exp(masses[one]) for one in CLUSTERS) == near(-0.096725)
    assert found.kuhn_semantic_entropy(evidence.log_means.tolist(), CLUSTERS) + 5 == near(5.238873)


def test_a7_lexical_similarity() -> None:
    assert mean_rouge_l(T3) == near(0.492063)
    assert [mean_rouge_l([T3[i], T3[j]]) for i, j in ((0, 1), (0, 2), (1, 2))] == [
        near(0.857143),
        near(0.285714),
        near(0.333333),
    ]
    assert mean_rouge_l(["", ""]) == 1
    assert JUDGES["lexical_similarity"](of_samples([[-1.0]] * 3, T3)) == near(0.492063)


def test_a8_to_a10_graph_of_words() -> None:
    weights = jaccard(T3)
    assert lacking_degree(weights) == near(0.418519)
    assert 3 * lacking_degree(weights) == near(1.255556)
    assert eigenvalue_sum(weights) == near(1.766267)
    assert spread(weights) == near(1.414214)
    assert spread(weights, 0.5) == near(1.000017)
    evidence = of_samples([[-1.0]] * 3, T3)
    names = ("deg_mat", "eig_val_laplacian", "eccentricity")
    assert [JUDGES[name](evidence) for name in names] == [near(0.418519), near(1.766267), near(1.414214)]


@pytest.mark.parametrize(
    ("relations", "graph", "expected"),
    [
        (AS_GIVEN, entailing, (0.476875, 1.877224, 1.000239)),
        (AS_GIVEN, not_contradicting, (0.371250, 1.580810, 1.000489)),
        (RELATIONS, entailing, (0.471875, 1.897348, 1.414214)),
        (RELATIONS, not_contradicting, (0.368750, 1.590404, 1.000486)),
    ],
)
def test_a11_graphs_of_relations(relations: np.ndarray, graph: object, expected: tuple[float, ...]) -> None:
    weights = graph(relations)  # type: ignore[operator]
    assert (lacking_degree(weights), eigenvalue_sum(weights), spread(weights)) == tuple(map(near, expected))


def test_a12_and_a13_sets_and_kernel() -> None:
    assert linked_sets(RELATIONS) == 2
    assert heat_entropy(AS_GIVEN, soft=True) == near(1.230725)
    assert heat_entropy(AS_GIVEN, soft=True) / math.log(4) == near(0.887780)
    assert heat_entropy(RELATIONS) == near(1.234200)
    assert heat_entropy(RELATIONS) / math.log(4) == near(0.890287)
    assert heat_entropy(RELATIONS, 0.4) == near(1.145819)
    assert heat_entropy(np.tile([0.0, 0, 1], (4, 4, 1))) == near(0.754147)
    assert heat_entropy(np.tile([1.0, 0, 0], (4, 4, 1))) == near(math.log(4))


def test_relations_reach_their_judges() -> None:
    whole = np.tile([0.0, 0, 1], (5, 5, 1))
    whole[1:, 1:] = RELATIONS
    evidence = of_samples(S4, relations=whole)
    expected = {
        "num_linked_sets": 2,
        "deg_mat_entail": 0.471875,
        "eig_val_laplacian_entail": 1.897348,
        "eccentricity_entail": 1.414214,
        "deg_mat_contra": 0.368750,
        "eig_val_laplacian_contra": 1.590404,
        "eccentricity_contra": 1.000486,
        "kernel_language_entropy": 1.234200,
        "meaning_agreement": 1,
        "self_check_nli": 0,
    }
    for name, value in expected.items():
        assert JUDGES[name](evidence) == near(value), name


def test_a14_semantic_density() -> None:
    means = np.array([-0.15, -0.5, -0.7])
    forward = np.array([[0.02, 0.08, 0.9], [0.1, 0.3, 0.6], [0.8, 0.15, 0.05]])
    backward = np.array([[0.01, 0.05, 0.94], [0.2, 0.4, 0.4], [0.9, 0.05, 0.05]])
    assert density(means, forward, backward) == near(0.651225)
    certain = np.array([[0.0, 0, 1]])
    polygraph = np.concatenate([forward, certain])
    assert density(np.append(means, -0.15), polygraph, polygraph) == near(0.774197)
    # the judge: of two equal samples one counts, and none that says what the greedy answer says
    relations = np.tile([0.0, 0, 1], (5, 5, 1))
    for row, (one, other) in enumerate(zip(forward[1:], backward[1:], strict=True), 2):
        relations[0, row], relations[row, 0] = one, other
    relations[0, 4], relations[4, 0] = relations[0, 3], relations[3, 0]
    samples = (answer([-7.0], "x"), answer([-0.5], "y"), answer([-0.7], "z"), answer([-0.7], "z"))
    evidence = Evidence("q?", answer([-0.15]), samples, relations=relations)
    both = np.stack([forward[1:], backward[1:]])
    both = np.concatenate([np.tile(certain, (2, 1, 1)), both], axis=1)
    assert JUDGES["semantic_density"](evidence) == near(density(means, *both))


def test_a15_self_check() -> None:
    logits = np.array([[-1, 1.5], [2, -1], [0.5, 0.5]])  # contradicts, entails
    for neutral in (-3.0, 0.0, 4.0):
        three = np.exp(np.insert(logits, 1, neutral, axis=1))
        shares = three / three.sum(1, keepdims=True)
        assert contradicted(shares) == near(0.509477)
        assert [contradicted(row[None]) for row in shares] == [near(0.075858), near(0.952574), near(0.5)]


def test_a16_eigenscore() -> None:
    z = np.array([[1, 0, 2, 1], [1.2, 0.1, 1.8, 0.9], [0, 1, 0.5, 2]])
    assert mean_log_eigenvalue(z) == near(-0.831019)
    assert mean_log_eigenvalue(z / math.sqrt(3)) / math.log(10) == near(-0.815230)
    assert mean_log_eigenvalue(np.tile(z[0], (3, 1))) == near(-4.007861)
    assert JUDGES["eigenscore"](of_samples([[-1.0]] * 3, states=z)) == near(-0.831019)


def test_a17_to_a20_relevance() -> None:
    relevance = 1 - np.array([0.9, 0.3, 0.8])
    assert token_relevance(np.array([-0.2, -1.5, -0.4]), relevance) == near(1.15)
    assert token_relevance(np.array([-0.2, -1.5, -0.4]), np.zeros(3)) == near(0.7)
    g = np.array([[1, 0.9, 0.2], [0.9, 1, 0.3], [0.2, 0.3, 1]])
    assert sentence_relevance(np.array([-0.8, -1.2, -2.5]), g) == near(-5.639874)
    assert sentence_relevance(np.array([-0.8, -1.2, -2.5]), g, 1) == near(0.652686)
    assert sentence_relevance(-np.array([0.6, 0.5, 1.1]), g) == near(-6.160952)
    similarities = np.ones((5, 5))
    similarities[0, 1:] = similarities[1:, 0] = [0.9, 0.7, 0.2, 1]
    steps = steps_of([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])
    steps = TokenSteps(**{**vars(steps), "entropies": np.array([0.3, 1.1, 0.6])})
    evidence = Evidence(
        "q?", answer([-0.1, -0.5, -0.3]), (answer([-1.0]),) * 4, similarities=similarities, steps=steps
    )
    names = ("cocoa_msp", "cocoa_ppl", "cocoa_mte")
    assert [JUDGES[name](evidence) for name in names] == [near(0.27), near(0.09), near(0.2)]
    of_uqlm = (0.5 + similarities[0, 1:] / 2).mean() / JUDGES["perplexity"](evidence)
    assert of_uqlm == near(0.629695)


def test_a17_and_a19_reach_their_judges() -> None:
    g = np.ones((4, 4))
    g[1:, 1:] = [[1, 0.9, 0.2], [0.9, 1, 0.3], [0.2, 0.3, 1]]
    relevance = [1 - np.array([0.9, 0.3, 0.8]), *[np.ones(1)] * 3]
    samples = tuple(answer([logprob]) for logprob in (-0.6, -0.5, -1.1))
    evidence = Evidence("q?", answer([-0.2, -1.5, -0.4]), samples, similarities=g, relevance=relevance)
    assert JUDGES["token_sar"](evidence) == near(1.15)
    assert JUDGES["sar"](evidence) == near(-6.160952)
    assert JUDGES["sentence_sar"](evidence) == near(-6.160952)


def test_a21_agreement() -> None:
    texts = ("a", *"aaaaaaa", *"bb", "c")
    evidence = Evidence("q?", answer([-1.0]), (answer([-1.0]),) * 10, same_text=texts)
    assert JUDGES["agreement"](evidence) == near(0.7)
    assert JUDGES["pairwise_agreement"](evidence) == near(0.488889)


def test_b1_to_b3_greedy_tokens() -> None:
    rows = [[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.9, 0.05, 0.05]]
    evidence = of_greedy([0.7, 0.5, 0.9], steps_of(rows))
    assert steps_of(rows).entropies == pytest.approx([0.801819, 0.943348, 0.394398], abs=1e-6)
    expected = {
        "gnll": 1.155183,
        "sequence_probability": 0.315,
        "mean_nll": 0.385061,
        "perplexity": 1.469704,
        "mean_token_entropy": 0.713188,
        "max_token_entropy": 0.943348,
        "max_token_nll": 0.693147,
        "probability_margin": 0.483333,
        "self_certainty": 0.487782,
        "n_tokens": 3,
    }
    for name, value in expected.items():
        assert JUDGES[name](evidence) == near(value), name
    up = {"sequence_probability", "probability_margin", "self_certainty"}
    for name, value in expected.items():
        assert JUDGES[name].score(evidence) == near(value if name in up else -value), name


def test_b4_claim_conditioned_probability() -> None:
    top = np.log([[0.6, 0.2, 0.1, 0.05], [0.8, 0.15, 1e-300, 1e-300]])
    entails, contradicts, neutral = (0.0, 0, 1), (1.0, 0, 0), (0.0, 1, 0)
    rows = [[entails, entails, contradicts, neutral], [entails, contradicts, neutral, neutral]]
    relations = np.array([[[each, each] for each in row] for row in rows])
    assert claim_conditioned(top, relations) == near(0.748538)
    of_tokens = [claim_conditioned(top[[step]], relations[[step]]) for step in (0, 1)]
    assert of_tokens == [near(0.888889), near(0.842105)]
    # one way entails and the other contradicts: neutral; one way neutral: the other decides
    relations[0, 1] = [entails, contradicts]
    relations[0, 2] = [contradicts, neutral]
    assert claim_conditioned(top, relations) == near(0.6 / 0.7 * 0.842105)
    steps = TokenSteps(**{**vars(steps_of([[0.5, 0.5]] * 2)), "top_logprobs": top})
    evidence = Evidence("q?", answer([-1.0, -1.0]), steps=steps, alternatives=relations)
    assert JUDGES["ccp"](evidence) == near(-0.6 / 0.7 * 0.842105)


def test_b5_and_b7_attention() -> None:
    p, attention = np.array([0.9, 0.4, 0.7]), np.array([[0.3, 0.6]])
    assert recurrent(p, attention, 0.2) == near(0.862774)
    assert recurrent(p, attention, 0.2) + 1 == near(1.862774)
    for own, course in ((0.2, (0.9, 0.296, 0.28208)), (0.5, (0.9, 0.335, 0.4505))):
        for length in (1, 2, 3):
            part = recurrent(p[:length], attention[:, : length - 1], own)
            assert part * length == near(-sum(math.log(each) for each in course[:length]))
    assert recurrent(p, attention, 0.5) == near(0.665461)
    assert recurrent(p, np.array([[0.99, 0.99], [0.3, 0.6]]), 0.2) == near(0.862774)
    assert recurrent(p[:1], np.empty((2, 0)), 0.2) == near(-math.log(0.9))
    heads = np.log([[1, 0.5, 0.2], [1, 0.25, 0.4]]).mean(0)
    steps = TokenSteps(
        **{**vars(steps_of([[0.5, 0.5]] * 4)), "attention": attention, "middle_attention": heads}
    )
    assert JUDGES["attention_score"](of_greedy([0.5] * 4, steps)) == near(2.302585)
    assert JUDGES["rauq"](of_greedy([0.9, 0.4, 0.7], steps)) == near(0.862774)


def test_b6_p_true() -> None:
    assert share_of_first(math.log(0.3), math.log(0.1)) == near(0.75)
    evidence = Evidence("q?", answer([-1.0]), asked={"p_true": (math.log(0.3), math.log(0.1))})
    assert JUDGES["p_true"].score(evidence) == near(0.75)
    assert JUDGES["log_p_true"].score(evidence) == near(-1.203973)
    assert 1 - JUDGES["log_p_true"].score(evidence) == near(2.203973)  # semantic_uncertainty's p_false
    assert 1 - math.exp(JUDGES["log_p_true"].score(evidence)) == near(0.7)


def test_e2_options() -> None:
    options = (-4, -6, -5.5, -9)
    evidence = Evidence("q?", answer([-1.0]), options=options)
    most = JUDGES["option_confidence"](evidence)
    assert most == near(0.732492)
    shares = [most * math.exp(each - max(options)) for each in options]
    assert shares == [near(0.732492), near(0.099132), near(0.163441), near(0.004935)]
    texts = tuple("x" * length for length in (5, 12, 20, 10))
    reading = OptionReading("key", (tuple((each,) for each in options),), 0.0, 0.0)
    scored = ScoredOptions([Question("q", "q?", ("C",), options=texts)], OptionScores.texts, reading)
    assert scored.sums == [list(options)]
    assert scored.by_length()[0] == pytest.approx([-0.8, -0.5, -0.275, -0.9])
    assert scored.metrics(0)["option_accuracy"] == 0
    assert scored.metrics(0)["option_accuracy_norm"] == 1


def test_an_answer_without_tokens_has_the_likelihood_of_its_stop() -> None:
    silence = Generation((), (), "", 1, 0.3, -2.5, "empty")
    evidence = Evidence("q?", silence, (silence, answer([-1.0, -3.0])))
    assert JUDGES["gnll"](evidence) == 2.5
    assert JUDGES["predictive_entropy"](evidence) == near(3.25)
    assert JUDGES["length_normalized_entropy"](evidence) == near(2.25)
    assert JUDGES["n_tokens"](evidence) == 0
