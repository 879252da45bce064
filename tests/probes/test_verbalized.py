"""Verbalized confidence: how a stated probability is read, and a cell of it against a plain generation."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import probegrid
from probegrid.data.example import Question
from probegrid.inference.generation import Generation
from probegrid.judges.asked import VERBALIZED, stated_probability
from probegrid.probes import Kind
from probegrid.probes.verbalized import Verbalized, question_of


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
    ],
)
def test_a_stated_probability_is_read(reply: str, value: float) -> None:
    assert stated_probability(reply) == pytest.approx(value)


@pytest.mark.parametrize("reply", ["", "very likely", "I do not know.", "5/0"])
def test_a_reply_without_one_gives_none(reply: str) -> None:
    assert math.isnan(stated_probability(reply))


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
