"""What somebody's own probe hands back: checked before anything is made of it; and what is said of missing scores."""

from __future__ import annotations

import math
from typing import Any

import pytest

from probegrid.cell.answer_probe import ScoreTable, area_metrics, checked
from probegrid.data.example import Question
from probegrid.errors import ConfigError
from probegrid.evaluation.summary import NO_SCORES
from probegrid.probes import Scores

QUESTIONS = [Question(name, f"{name}?", ("x",)) for name in ("who", "where")]


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        (Scores([0.1, math.inf]), "probe=odd gives inf for 'where\\?'; a score is a finite number, or nan"),
        (Scores([None, 1.0]), "probe=odd gives None for 'who\\?'"),  # type: ignore[list-item]
        (Scores([1.0]), "probe=odd gives 1 scores of 2 answers; one an answer is needed"),
        (Scores([1.0, 2.0], others={"own": [1.0, -math.inf]}), "probe=odd gives -inf for 'where\\?'"),
    ],
)
def test_what_is_no_score_is_refused(scores: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        checked(scores, "probe=odd", QUESTIONS)


def test_scores_become_floats_and_none_stays_none() -> None:
    found = checked(Scores([True, math.nan], others={"own": [1, 2]}), "probe=odd", QUESTIONS)
    assert found.own[0] == 1.0
    assert math.isnan(found.own[1])
    assert found.others == {"own": [1.0, 2.0]}


def test_a_score_that_no_answer_has_is_not_for_one_class() -> None:
    others = {"none": [math.nan] * 2, "some": [1.0, math.nan]}
    notes = area_metrics(ScoreTable(QUESTIONS, [True, False], [0.1, 0.2], others), seed=0)[1]
    assert notes["none_auroc"] == NO_SCORES
    assert notes["some_auroc"].startswith("of the 1 of 2 answers that have such a score")
