"""Every activation probe passes the contract; their configurations refuse what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from probegrid.compose import compose_cell
from probegrid.errors import ConfigError, DataError
from probegrid.evaluation.ranking import auroc
from probegrid.evaluation.splits import TEST, divide
from probegrid.probes import ActivationProbe
from probegrid.probes.control import Control
from probegrid.probes.fitting.features import Features
from probegrid.probes.logistic import ClassWeight, Logistic, Optimizer
from probegrid.probes.mass_mean import MassMean
from probegrid.probes.text_baseline import TextBaseline
from probegrid.probes.training import Examples, control_auroc, features_of, train

PROBES = [
    Logistic(),
    Logistic(C=[0.1], class_weight=ClassWeight.balanced),
    Logistic(optimizer=Optimizer.adam, epochs=25),
    MassMean(),
    MassMean(whiten=True),
]


@pytest.mark.parametrize("probe", PROBES, ids=repr)
def test_contract_holds(check_probe: Callable[[ActivationProbe], None], probe: ActivationProbe) -> None:
    check_probe(probe)


@pytest.mark.parametrize(
    ("choice", "kind"),
    [("logistic", Logistic), ("mass_mean", MassMean), ("control", Control), ("text_baseline", TextBaseline)],
)
def test_composes_with_the_root_seed(choice: str, kind: type) -> None:
    config = compose_cell([f"probe={choice}", "seed=3"]).config
    assert type(config.probe) is kind
    assert config.probe.seed == 3


def test_layers_are_written_in_one_way() -> None:
    assert Logistic().layers == "all"
    assert Logistic(layers=[22, 0, 22]).layers == [0, 22]
    assert Logistic(layers=22).layers == [22]
    config = compose_cell(["probe=logistic", "probe.layers=[3,1]"]).config
    assert isinstance(config.probe, ActivationProbe)
    assert config.probe.layers == [1, 3]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": "some"}, "probe.layers=some is neither 'all' nor a list"),
        ({"layers": []}, "probe.layers"),
        ({"layers": [-1]}, "probe.layers"),
        ({"layers": [True]}, "probe.layers"),
        ({"positions": "statement_ende"}, "did you mean 'statement_end'"),
        ({"split": "leakfre"}, "did you mean 'leakfree'"),
        ({"seed": -1}, "probe.seed=-1 is negative"),
        ({"C": []}, "probe.C"),
        ({"C": [1.0, 0.0]}, "probe.C"),
        ({"epochs": 0}, "probe.epochs=0"),
    ],
)
def test_values_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        Logistic(**values)


def test_control_learns_random_labels_alone(make_features: Callable[..., Features]) -> None:
    """Without texts each example has a label of its own, and splits keep their counts."""
    features = replace(make_features(separation=3.0, n=2000), texts=())
    shuffled = features.with_shuffled_labels(0)
    assert torch.equal(Control().fit(features).directions, Logistic().fit(shuffled).directions)
    for part in np.unique(features.parts):
        assert shuffled.labels_of(part).sum() == features.labels_of(part).sum()
    test = features.parts == TEST
    scores = Control().fit(features).scores(features.activations)[test]
    own = Control(seed=5).fit(features)
    assert not torch.equal(own.directions, Control().fit(features).directions)
    assert np.mean([abs(auroc(shuffled.labels[test], column) - 0.5) for column in scores.T]) < 0.08


def test_control_can_fail() -> None:
    """80 texts, 5 copies each, a label a text: whoever remembers texts scores about 1 on it (Hewitt & Liang 2019)."""
    generator = torch.Generator().manual_seed(0)
    of_text = torch.randn(80, 1, 200, generator=generator).repeat_interleave(5, dim=0)
    activations = of_text + 0.05 * torch.randn(400, 1, 200, generator=generator)
    texts = tuple(f"Statement {row // 5}{'.' if row % 2 else ''}" for row in range(400))
    labels = np.arange(400) % 2 == 0
    examples = Examples(texts, tuple(map(str, range(400))), texts, ("",) * 400, labels)
    division = divide("random", labels, examples.conversations, texts, examples.sources, seed=0)
    control = control_auroc(Logistic(), examples, (0,), activations, division)
    assert control.value > 0.97
    fold = division.folds[0]
    features = features_of(examples, fold, (0,), activations).with_shuffled_labels(3)
    one_label = {}
    for text, label in zip(texts, features.labels, strict=True):
        assert one_label.setdefault(text.rstrip("."), label) == label
    assert 0.45 < features.labels.mean() < 0.55
    probe = train(Logistic(), features, fold)
    own = auroc(features.labels[probe.test_rows], probe.scores[probe.test_rows])
    assert abs(own - control.value) < 0.03, "labels that mean nothing leave no selectivity"


def test_activations_that_are_not_numbers_are_refused(make_features: Callable[..., Features]) -> None:
    features = make_features(separation=1.0)
    activations = features.activations.clone()
    activations[4, 1, 2] = torch.nan
    with pytest.raises(DataError, match="of 1 of 300 examples are NaN or infinite at layer 3"):
        Features(activations, features.layers, features.labels, features.parts)
    with pytest.raises(ValueError, match=r"\[300 examples, 2 layers, width\]"):
        Features(features.activations, (0, 1), features.labels, features.parts)


def test_a_layer_that_says_nothing_scores_all_alike(make_features: Callable[..., Features]) -> None:
    features = make_features(separation=1.0)
    blank = Features(
        torch.full_like(features.activations, 0.1), features.layers, features.labels, features.parts
    )
    for probe in (Logistic(), MassMean(), MassMean(whiten=True)):
        fitted = probe.fit(blank)
        probabilities = fitted.probabilities(fitted.scores(blank.activations))
        assert not fitted.directions.any()
        np.testing.assert_allclose(probabilities, 0.5, atol=1e-6)
