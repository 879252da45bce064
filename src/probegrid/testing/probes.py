"""The contract of a probe: on made-up activations where it learns, on the embedded model where it scores answers."""

from __future__ import annotations

import io
import math
import pickle
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from probegrid.compose import compose_cell
from probegrid.data.example import QuestionSet
from probegrid.evaluation.ranking import auroc
from probegrid.evaluation.splits import TEST, TRAIN, VALIDATION
from probegrid.probes import ActivationProbe, AnswerProbe, Probe, Scores, TrainedProbe
from probegrid.readings.store import key_of

if TYPE_CHECKING:
    from probegrid.cell.gather import JudgedAnswers
    from probegrid.evaluation.checks import FloatArray
    from probegrid.probes.fitting.features import Features

LAYERS = (0, 3, 5)
WIDTH = 12
QUESTIONS = 40


def check_probe(probe: Probe) -> None:
    """Hold a probe to what every probe promises.

    It can be sent to where it runs, what it is known by can be hashed, and its needs follow from its fields alone. One
    that scores answers gives every question a finite score (or none), the same each time, whatever the references are.
    One that learns does so from the training and validation splits alone.

    Raises:
        AssertionError: it does not hold.
    """
    assert pickle.loads(pickle.dumps(probe)) == probe, "it cannot be sent to a worker"  # noqa: S301  # our own bytes
    assert len(key_of(probe.described())) == 16, "what it is known by cannot be hashed"
    assert probe.kinds, "it is a probe of no kind of examples"
    for kind in probe.kinds:
        needs, again = probe.needs(kind), probe.needs(kind)
        assert (needs.samples, needs.hidden, needs.classifier) == (
            again.samples,
            again.hidden,
            again.classifier,
        )
        assert needs.asks.keys() == again.asks.keys(), "its needs differ from call to call"
        assert needs.samples == probe.fewest_samples, (
            "fewest_samples and needs name different numbers of samples"
        )
    if isinstance(probe, AnswerProbe):
        _check_answer_probe(probe)
    else:
        assert isinstance(probe, TrainedProbe), "it neither scores answers nor learns"
        _check_trained_probe(probe)


def _check_answer_probe(probe: AnswerProbe) -> None:
    scores, again, blind = _scored(probe)
    columns = {"its own score": scores.own, **scores.others}
    for name, column in columns.items():
        assert len(column) == QUESTIONS, f"{name}: {len(column)} scores of {QUESTIONS} questions"
        assert not any(map(math.isinf, column)), f"{name} is infinite"
    assert not any(map(math.isnan, (score for column in scores.others.values() for score in column)))
    if probe.is_probability:
        known = [score for score in scores.own if not math.isnan(score)]
        assert all(0 <= score <= 1 for score in known), "a probability lies outside [0, 1]"
    _assert_same(scores, again, "it scores the same answers differently")
    _assert_same(scores, blind, "its scores depend on the references of what is asked")


def _assert_same(first: Scores, second: Scores, message: str) -> None:
    assert first.others.keys() == second.others.keys(), message
    pairs = [(first.own, second.own), *((first.others[name], second.others[name]) for name in first.others)]
    assert all(np.array_equal(one, other, equal_nan=True) for one, other in pairs), message


def _scored(probe: AnswerProbe) -> tuple[Scores, Scores, Scores]:
    """Score the embedded model's answers to embedded questions, once more, and with other references."""
    from rich.console import Console

    from probegrid.cell.answer_probe import scoring_of
    from probegrid.cell.gather import entailments_of, gather
    from probegrid.cell.prepare import prepare
    from probegrid.models.pool import ModelPool
    from probegrid.progress import Progress
    from probegrid.readings.session import ModelSession

    with tempfile.TemporaryDirectory() as store, Progress(Console(file=io.StringIO())) as progress:
        drawn = [f"decoding.num_generations={max(2, probe.fewest_samples)}"] if probe.fewest_samples else []
        decoding = ["decoding=sample", *drawn] if probe.fewest_samples else []
        spec = compose_cell([f"dataset.num_samples={QUESTIONS}", f"store_dir={store}", *decoding])
        cell = prepare(replace(spec, config=replace(spec.config, probe=probe)))
        assert cell.model is not None
        with ModelPool() as pool:
            session = ModelSession(
                cell.config, cell.model.checkpoint, cell.model.tokenizer, None, pool, progress
            )
            gathered = gather(cell, session)
            answers = gathered.answers
            assert answers is not None
            data = answers.data
            asked = tuple(replace(question, references=("nothing of it",)) for question in data.questions)
            blind = replace(answers, data=QuestionSet(asked, data.shots, data.rule))

            def score(answers: JudgedAnswers) -> Scores:
                with entailments_of(cell, session, answers) as entails:
                    return probe.score(scoring_of(cell, replace(gathered, answers=answers), entails))

            return score(answers), score(answers), score(blind)


def _check_trained_probe(probe: TrainedProbe) -> None:
    features = make_features(separation=2.0)
    fitted, again = probe.fit(features), probe.fit(features)
    scores = fitted.score(features)
    assert scores.shape[0] == len(features.labels), "it does not score every example"
    assert np.isfinite(scores).all(), "a score is not a finite number"
    assert np.array_equal(scores, again.score(features)), "two fits on the same examples differ"
    assert np.asarray(fitted.scales).shape == scores.shape[1:], "one scale a column is needed"
    assert (np.asarray(fitted.scales) > 0).all(), "a scale is not positive"
    _check_ignores_test_rows(probe, features, scores)
    if isinstance(probe, ActivationProbe):
        assert scores.shape[1] == len(LAYERS), "it does not score by every layer"


def _check_ignores_test_rows(probe: TrainedProbe, features: Features, expected: FloatArray) -> None:
    """Other activations, texts and labels of the test split change nothing in the fit, nor in the expected scores."""
    import torch

    test = features.parts == TEST
    activations = features.activations.clone()
    activations[torch.from_numpy(test)] = -777.0
    texts = tuple("nothing" if hidden else text for text, hidden in zip(features.texts, test, strict=True))
    entropies = None if features.entropies is None else np.where(test, 9.0, features.entropies)
    other = replace(
        features, activations=activations, labels=features.labels ^ test, texts=texts, entropies=entropies
    )
    assert np.array_equal(expected, probe.fit(other).score(features)), "the test split matters in the fit"


def check_learns(probe: TrainedProbe) -> None:
    """Hold a probe on activations to more: classes far apart are told apart, shuffled labels are not learned.

    Raises:
        AssertionError: it does not hold.
    """
    assert min(aurocs_on_test(probe, make_features(separation=20.0))) == 1.0, (
        "it does not learn what is plain"
    )
    shuffled = make_features(separation=0.0, n=2000).with_shuffled_labels(1)
    areas = np.array(aurocs_on_test(probe, shuffled))
    assert np.abs(areas - 0.5).max() < 0.1, "it tells test examples apart by labels that mean nothing"


def aurocs_on_test(probe: TrainedProbe, features: Features) -> list[float]:
    """AUROC on the test split of each column."""
    test = features.parts == TEST
    scores = probe.fit(features).score(features)[test]
    return [auroc(features.labels[test], column) for column in scores.T]


def make_features(separation: float, *, n: int = 300, width: int = WIDTH, seed: int = 0) -> Features:
    """Activations of unequal scales far from 0, with the classes `separation` standard deviations apart."""
    import torch

    from probegrid.probes.fitting.features import Features

    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2 == 0
    noise = torch.randn(n, len(LAYERS), width, generator=generator)
    direction = torch.nn.functional.normalize(torch.randn(len(LAYERS), width, generator=generator), dim=-1)
    signs = labels.float() * 2 - 1
    activations = noise + separation / 2 * signs[:, None, None] * direction
    scales = torch.logspace(-0.5, 0.5, width)
    parts = np.array([TRAIN, TRAIN, TRAIN, VALIDATION, TEST])[np.arange(n) // 2 % 5]
    negated = [(row // 2 + row) % 2 == 0 for row in range(n)]  # two neighbours are each other's negation
    texts = tuple(f"thing {row // 2 % 85} is {'not ' * negated[row]}here" for row in range(n))
    sources = tuple("neg_things" if each else "things" for each in negated)
    entropies = (~labels).double().numpy()
    return Features(
        activations * scales + 20 * scales, LAYERS, labels.numpy(), parts, texts, sources, entropies
    )
