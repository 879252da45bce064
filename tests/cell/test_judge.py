"""The rule ``judge``: what a second model is asked, what is made of its reply, and cells that it judges."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import probegrid
from probegrid.cell.judge import judge_prompt
from probegrid.cell.prepare import prepare
from probegrid.compose import compose_cell
from probegrid.data.example import Question
from probegrid.errors import CheckpointError, ConfigError


def test_the_prompt_names_question_expected_and_proposed_answer_in_this_order() -> None:
    one = judge_prompt(Question("q", "Who wrote it?", ("Kuhn",)), "Mr Kuhn")
    places = [
        one.index(text)
        for text in ("Who wrote it?", "expected answer is: Kuhn.", "proposed answer is: Mr Kuhn")
    ]
    assert places == sorted(places)
    assert one.endswith("Respond only with yes or no.\nResponse:")
    several = judge_prompt(Question("q", "Who?", ("Kuhn", "Farquhar")), "x")
    assert "expected answers to this question: ['Kuhn', 'Farquhar']." in several
    assert "mean the same as any of the expected answers?" in several


def said(model: Any, tokenizer: Any, text: str, word: str) -> float:
    """Log-probability of a word behind a text, by a plain forward pass."""
    is_plain = not tokenizer.chat_template
    before, whole = (
        tokenizer(each, add_special_tokens=is_plain)["input_ids"]
        for each in (text, text + " " * is_plain + word)
    )
    assert whole[: len(before)] == before
    with torch.inference_mode():
        logprobs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    return sum(logprobs[place - 1, whole[place]].item() for place in range(len(before), len(whole)))


@pytest.fixture(scope="module")
def words(random_model: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("judged")
    rows = [{"id": f"q{n}", "question": f"What is {n}?", "answers": [f"thing {n}"]} for n in range(12)]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        *random_model,
        f"dataset={folder / 'mine.jsonl'}",
        "dataset.rule=judge",
        "prompt.num_few_shot=0",
        "decoding.max_new_tokens=5",
        "tracking=none",
        f"store_dir={folder / 'store'}",
        f"results_dir={folder / 'results'}",
    ]


@pytest.mark.slow
def test_verdicts_are_those_of_a_plain_forward_pass_of_the_second_model(
    words: list[str], checkpoint: Callable[[str], Path]
) -> None:
    folder = checkpoint("qwen2")
    result = probegrid.run([*words, f"dataset.judge={folder}"])
    answers = result.tables["answers"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    asked = answers[answers["judge_p"].notna()]
    assert len(asked) == result.metrics["n_judged"] > 5
    for row in asked.itertuples():
        question = Question(row.example_id, row.question, tuple(row.references))
        text = judge_prompt(question, row.answer)
        if tokenizer.chat_template:
            turns = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        yes, no = (said(model, tokenizer, text, word) for word in ("yes", "no"))
        assert row.judge_p == pytest.approx(math.exp(yes) / (math.exp(yes) + math.exp(no)), abs=1e-4)
        assert row.correct == (row.judge_p >= 0.5)
    assert result.metrics["n_correct"] == answers["correct"].sum()
    again = probegrid.run([*words, f"dataset.judge={folder}", "force=true"])
    pd.testing.assert_series_equal(again.tables["answers"]["judge_p"], answers["judge_p"])


def test_p_true_shows_examples_that_the_judge_has_judged(
    words: list[str], checkpoint: Callable[[str], Path]
) -> None:
    more = [
        "probe=p_true",
        "probe.num_few_shot=1",
        "decoding.num_generations=2",
        f"dataset.judge={checkpoint('qwen2')}",
    ]
    result = probegrid.run([*words, *more])
    assert 0 <= result.metrics["accuracy"] <= 1


def test_the_judge_is_a_part_of_the_key(words: list[str], checkpoint: Callable[[str], Path]) -> None:
    keys = {
        prepare(compose_cell([*words, f"dataset.judge={checkpoint(name)}"])).key
        for name in ("qwen2", "llama")
    }
    assert len(keys) == 2


def test_what_cannot_be_is_refused_before_anything_is_read(
    words: list[str], checkpoint: Callable[[str], Path]
) -> None:
    with pytest.raises(
        ConfigError, match=r"dataset\.rule=judge asks a second model; name it with dataset\.judge="
    ):
        prepare(compose_cell(words))
    with pytest.raises(ConfigError, match=r"is for dataset\.rule=judge, and the rule is squad"):
        prepare(compose_cell([*words, "dataset.rule=squad", f"dataset.judge={checkpoint('llama')}"]))
    with pytest.raises(CheckpointError, match=r"dataset\.judge=/no/such/model is neither"):
        prepare(compose_cell([*words, "dataset.judge=/no/such/model"]))
