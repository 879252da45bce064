"""CCS against the official code's formulas, and what it takes for a statement's negation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from probegrid.errors import DataError
from probegrid.evaluation.ranking import auroc
from probegrid.probes.ccs import CCS
from probegrid.probes.fitting.contrast import (
    Contrasts,
    beginnings,
    contrast_loss,
    contrast_score,
    train_contrast,
)
from probegrid.probes.saved import SavedProbe
from probegrid.testing.probes import check_learns, make_features


def test_c7_loss_and_scores() -> None:
    positive, negative = torch.tensor([0.9, 0.2, 0.6]), torch.tensor([0.2, 0.7, 0.5])
    assert float(contrast_loss(positive, negative)) == pytest.approx(0.12, abs=1e-6)
    assert contrast_score(positive, negative).tolist() == pytest.approx([0.85, 0.25, 0.55])


def test_the_course_of_the_official_code() -> None:
    """`discovering_latent_knowledge`'s CCS: AdamW on a linear layer, the restart of the least loss kept."""
    generator = torch.Generator().manual_seed(3)
    positive, negative = torch.randn(2, 2, 40, 6, generator=generator)
    found = train_contrast(positive, negative, restarts=3, epochs=60, seed=5)
    weights, biases = beginnings(2, 3, 6, 5)
    for layer in range(2):
        kept: tuple[float, torch.Tensor, torch.Tensor] | None = None
        for restart in range(3):
            probe = torch.nn.Sequential(torch.nn.Linear(6, 1), torch.nn.Sigmoid())
            probe[0].weight.data, probe[0].bias.data = weights[layer, restart][None], biases[layer, restart]
            optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-3, weight_decay=0.01)
            for step in range(61):
                p0, p1 = probe(positive[layer]), probe(negative[layer])
                informative = (torch.min(p0, p1) ** 2).mean(0)
                loss = informative + ((p0 - (1 - p1)) ** 2).mean(0)
                if step < 60:
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            if kept is None or loss.item() < kept[0]:
                kept = loss.item(), probe[0].weight.data[0], probe[0].bias.data[0]
        assert kept is not None
        torch.testing.assert_close(found[0][layer], kept[1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[1][layer], kept[2], rtol=1e-4, atol=1e-5)


def test_a_statement_and_its_negation_are_a_pair() -> None:
    texts = [
        "The city of Lodz is in Poland.",
        "The Spanish word 'uno' does not mean 'one'.",
        "The city of Lodz is not in Poland.",
        "The city of Lodz is not in Peru.",
        "The Spanish word 'uno' means 'one'.",
        "Poland isn't in the city of Lodz.",
        "The city of Lodz is in Poland.",
    ]
    found = Contrasts.of(texts)
    assert found.are_negated.tolist() == [False, True, True, True, False, True, False]
    assert found.partners.tolist() == [2, 4, 0, -1, 1, -1, -1]
    assert [rows.tolist() for rows in found.pairs] == [[0, 4], [2, 1]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "probe", [CCS(restarts=3, epochs=400), CCS(var_normalize=True, restarts=2, epochs=400)], ids=repr
)
def test_learns_without_labels(probe: CCS) -> None:
    check_learns(probe)
    features = make_features(separation=4.0)
    train = features.parts == "train"
    fitted = probe.fit(features)
    other = probe.fit(replace(features, labels=features.labels ^ train))
    assert np.array_equal(fitted.score(features), other.score(features))
    turned = probe.fit(replace(features, labels=~features.labels))
    assert turned.score(features) == pytest.approx(-fitted.score(features), abs=1e-3)
    assert "no label" in fitted.notes[0]


def test_a_statement_is_scored_with_its_negation_where_that_is_there() -> None:
    features = make_features(separation=2.0)
    fitted = CCS(restarts=2).fit(features)
    x, pair = features.activations[:2, 1], features.texts[:2]
    own = [float(fitted.raw(1, x[[row]].double(), pair[row : row + 1])[0]) for row in (0, 1)]
    both = fitted.raw(1, x.double(), pair)
    assert both.tolist() == pytest.approx([(own[0] + 1 - own[1]) / 2, (own[1] + 1 - own[0]) / 2])
    side = int("not" in pair[0])
    logit = (x[0] - fitted.means[1, side]).double() @ fitted.weights[1].double() + fitted.biases[1]
    assert own[0] == pytest.approx(float(torch.sigmoid(logit)), abs=1e-6)
    saved = SavedProbe("ccs", fitted, 3, 0.0, "statement_end", {}, {})
    again = SavedProbe.from_files(saved.to_files())
    expected = fitted.score(features)[:, 1]
    assert again.scores(features.activations[:, 1], features.texts) == pytest.approx(expected, abs=1e-9)
    labels = features.labels[features.parts == "test"]
    assert auroc(labels, expected[features.parts == "test"]) > 0.9


def test_statements_without_negations_are_refused() -> None:
    features = make_features(separation=2.0)
    affirmed = replace(features, texts=tuple(text.replace("not ", "") for text in features.texts))
    with pytest.raises(DataError, match=r"180 statements hold 0 such pairs; give both lists"):
        CCS().fit(affirmed)
