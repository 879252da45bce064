"""Verbalized confidence: how a stated probability is read, and a cell of it against a plain generation."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import probegrid
from probegrid.compose import compose_cell
from probegrid.data.example import Question
from probegrid.evaluation.extraction import by_pattern, compiled
from probegrid.evaluation.summary import NO_OWN_SCORES
from probegrid.inference.generation import Generation
from probegrid.judges.asked import (
    VERBALIZED,
    VERBALIZED_TOP_K,
    probability_beside_guess,
    share_of_first,
    stated_probability,
)
from probegrid.probes import Kind
from probegrid.probes.verbalized import Verbalized, question_of, scores_of
from probegrid.probes.verbalized_top_k import VerbalizedTopK


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("0.9", 0.9),
        (".9", 0.9),
        ("1", 1.0),
        ("0", 0.0),
        ("90%", 0.9),
        ("90 %", 0.9),
        ("90/100", 0.9),
        ("9 / 10", 0.9),
        ("90", 0.9),
        ("120", 1.0),
        ("Probability: 0.25", 0.25),
        ("between 0.2 and 0.4", 0.4),
        ("0.7.", 0.7),
        ("9 out of 10", 0.9),
        ("90 out of 100.", 0.9),
        ("1 percent", 0.01),
        ("0.5 per cent", 0.005),
        ("0,9", 0.9),
        ("99,5%", 0.995),
        ("90\uff05", 0.9),
        ("1e-3", 0.001),
    ],
)
def test_a_stated_probability_is_read(reply: str, value: float) -> None:
    assert stated_probability(reply) == pytest.approx(value)


@pytest.mark.parametrize("reply", ["", "very likely", "I do not know.", "5/0"])
def test_a_reply_without_one_gives_none(reply: str) -> None:
    assert math.isnan(stated_probability(reply))


@pytest.mark.parametrize(
    ("prompt", "answer", "guess", "value"),
    [
        ("verbalized", " Paris\nProbability: 0.9", "Paris", 0.9),
        ("verbalized", "Guess: 1995\n Probability: 80%", "1995", 0.8),
        ("verbalized", "1995", "1995", math.nan),
        ("verbalized", "1995\nProbability: high", "1995", math.nan),
        ("verbalized", "Probability\nProbability: 1", "Probability", 1.0),
        ("verbalized", "Oslo\n**Probability:**\n\n0.8", "Oslo", 0.8),
        ("verbalized", "Oslo\nProbability:\nOslo has 700000 people", "Oslo", math.nan),
        ("verbalized_top_k", " Oslo\nP1: .6\nG2: Bergen 2\nP2: 0.3", "Oslo", 0.6),
        ("verbalized_top_k", "G1: Oslo\nG2: Bergen\nP2: 0.3", "Oslo", math.nan),
    ],
)
def test_guess_and_probability_of_one_answer(prompt: str, answer: str, guess: str, value: float) -> None:
    config = compose_cell(["probe=verbalized_1s", f"prompt={prompt}"]).config.prompt
    found = by_pattern(answer, compiled(config.answer_pattern or ""))
    assert found is not None
    assert found.text == guess
    assert probability_beside_guess(answer) == pytest.approx(value, nan_ok=True)


def test_a_choice_that_is_all_but_impossible_has_a_share() -> None:
    assert share_of_first(-1000.0, 0.0) == 0
    assert 0 < share_of_first(-60.0, 0.0) < share_of_first(-59.0, 0.0) < 1e-20
    assert share_of_first(0.0, -1000.0) == 1


def test_replies_without_a_number_are_counted_and_never_nought() -> None:
    scores = scores_of([0.5, math.nan, math.nan, 0.0])
    assert list(scores.own)[:1] == [0.5]
    assert math.isnan(scores.own[1])
    assert scores.notes == ["2 of 4 replies state no probability (50%) and are left out"]
    assert not scores_of([0.0]).notes


def test_other_guesses_are_shown_once_after_what_all_questions_share() -> None:
    ask = VerbalizedTopK(guesses=3).needs(Kind.questions).asks[VERBALIZED_TOP_K]
    said = [Generation((), (), text, 0, 0.0, 0.0, "stop") for text in ("a", "b", "a", "c", "d")]
    one, other = (ask.write(Question(name, name, ()), said) for name in ("Who?", "Where?"))
    assert one.endswith("Question: Who?\nG1: a\nG2: b\nG3: c\nP1:")
    assert one.partition("Question: ")[0] == other.partition("Question: ")[0] != ""


def test_a_cell_whose_answers_state_no_probability_says_so(workdir: Path) -> None:
    result = probegrid.run(["probe=verbalized_1s", "dataset.num_samples=6", "tracking=none"])
    assert result.tables["scores"].score.isna().all()
    assert result.metrics["n_unscored"] == result.metrics["n"] == 6
    assert result.metrics["unscored_share"] == 1
    assert result.notes["auroc"] == "no answer has a score"
    assert not {"accuracy", "f1"} & result.notes.keys()  # of all answers, which are there
    assert result.notes["gnll_auroc"] == NO_OWN_SCORES
    assert "6 of 6 replies state no probability (100%)" in result.notes["scores"]


def test_replies_are_those_of_a_plain_greedy_generation(
    checkpoint: Callable[[str], Path], workdir: Path
) -> None:
    folder = checkpoint("llama")
    result = probegrid.run(
        [
            *("model=custom", f"model.path={folder}", "model.dtype=float32", "probe=verbalized"),
            *("dataset.num_samples=12", "decoding.max_new_tokens=6", "tracking=none"),
        ]
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = result.tables["answers"].merge(result.tables["scores"], on="example_id")
    ask = Verbalized().needs(Kind.questions).asks[VERBALIZED]
    for row in rows.itertuples():
        said = Generation((), (), row.answer, 0, 0.0, 0.0, row.ended)
        prompt = question_of(Question("q", row.question, ()), [said])
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.inference_mode():
            whole = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=ask.max_new_tokens
            )
        reply = tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True).partition("\n")[0]
        expected = stated_probability(reply)
        assert math.isnan(row.score) is math.isnan(expected)
        assert math.isnan(expected) or row.score == pytest.approx(expected)
    unscored = int(rows.score.isna().sum())
    assert result.metrics.get("n_unscored", 0) == unscored
    assert result.metrics["n"] == len(rows)
    assert result.metrics["accuracy"] == pytest.approx(rows.correct.mean())
    assert (f"{unscored} of 12 replies state no probability" in result.notes.get("scores", "")) is (
        unscored > 0
    )
