"""Every activation probe passes the contract; their configurations refuse what cannot be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from probegrid.compose import compose_cell
from probegrid.errors import ConfigError, DataError
from probegrid.evaluation.ranking import auroc
from probegrid.evaluation.splits import TEST
from probegrid.probes import ActivationProbe
from probegrid.probes.control import Control
from probegrid.probes.fitting.features import Features
from probegrid.probes.logistic import ClassWeight, Logistic, Optimizer
from probegrid.probes.mass_mean import MassMean
from probegrid.probes.text_baseline import TextBaseline

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


def test_control_learns_shuffled_labels_alone(make_features: Callable[..., Features]) -> None:
    features = make_features(separation=3.0, n=2000)
    shuffled = features.with_shuffled_labels(0)
    assert torch.equal(Control().fit(features).directions, Logistic().fit(shuffled).directions)
    for part in np.unique(features.parts):
        assert shuffled.labels_of(part).sum() == features.labels_of(part).sum()
    test = features.parts == TEST
    scores = Control().fit(features).scores(features.activations)[test]
    own = Control().fit(features.with_shuffled_labels(5))
    assert not torch.equal(own.directions, Control().fit(features).directions)
    assert np.mean([abs(auroc(shuffled.labels[test], column) - 0.5) for column in scores.T]) < 0.08


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


def test_composing_a_probe_imports_no_torch() -> None:
    code = (
        "import sys; from probegrid.compose import compose_cell; "
        "[compose_cell([f'probe={p}']) for p in ('logistic', 'mass_mean', 'text_baseline', 'control')]; "
        "assert not {'torch', 'sklearn', 'scipy'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
