"""p(true) of whole cells against a plain forward pass over a prompt written out here, in float32."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import probegrid
from probegrid.cell.run import Result
from probegrid.compose import compose_cell
from probegrid.data import facts
from probegrid.data.example import Question, QuestionSet
from probegrid.errors import ConfigError
from probegrid.evaluation.correctness import Rule, judge
from probegrid.judges.asked import P_TRUE
from probegrid.probes import Kind
from probegrid.probes.p_true import PTrue
from probegrid.readings.asks import draw_worked
from probegrid.readings.prompts import build_prompts, choose_shots
from probegrid.readings.templates import ChatTemplate
from probegrid.schema import PromptConfig

pytestmark = pytest.mark.slow  # cells of real models, or composed one by one

N = 8
SAMPLES = 3
SMALL = (
    *(f"dataset.num_samples={N}", "prompt.num_few_shot=2", "decoding.max_new_tokens=6"),
    *(f"decoding.num_generations={SAMPLES}", "probe=p_true", "tracking=none"),
)
Cells = Callable[..., Result]


def draw_shots(data: QuestionSet, prompt: PromptConfig, count: int, seed: int) -> tuple[Question, ...]:
    ask = PTrue(num_few_shot=count, seed=seed).needs(Kind.questions).asks[P_TRUE]
    return draw_worked(P_TRUE, ask, data, choose_shots(data, prompt))


@pytest.fixture
def cells(checkpoint: Callable[[str], Path], workdir: Path) -> Cells:
    """Run a cell of a random model in the empty folder."""
    return lambda name, *overrides: probegrid.run(
        ["model=custom", f"model.path={checkpoint(name)}", "model.dtype=float32", *SMALL, *overrides]
    )


def asked_of(result: Result) -> dict[str, str]:
    """The question itself, by example: what stands in its prompt after the last ``Question:``."""
    answers = result.tables["answers"]
    texts = [prompt.rpartition("Question: ")[2].removesuffix("\nAnswer:") for prompt in answers.prompt]
    return dict(zip(answers.example_id, texts, strict=True))


def written_out(
    question: str,
    answers: list[str],
    *,
    is_shot: bool = False,
    greedy_first: bool = False,
    hint: bool = False,
) -> str:
    """semantic_uncertainty's: in a shot the greedy answer first and lines end in a space, else it is last."""
    ordered = answers if is_shot or greedy_first else [*answers[1:], answers[0]]
    end = " \n" if is_shot and not greedy_first else "\n"
    ideas = "".join(f"{answer}{end}" for answer in ordered)
    if hint:
        asked = (
            f"Possible answer: {answers[0]}\nDo the brainstormed answers match the possible answer? Respond with A if "
            "they do, if they do not respond with B. Answer:"
        )
        return f"Question: {question}\nBrainstormed Answers: {ideas}{asked}"
    lines = [f"Possible answer: {answers[0]}", "Is the possible answer:", "A) True", "B) False"]
    asked = "\n".join([*lines, "The possible answer is:"])
    return f"Question: {question}\nBrainstormed Answers: {ideas}{asked}"


def blocks(result: Result, *, hint: bool = False) -> dict[str, str]:
    answers, samples = result.tables["answers"].set_index("example_id").answer, result.tables["samples"]
    return {
        example: written_out(
            question,
            [answers[example], *samples[samples.example_id == example].sort_values("sample").answer],
            hint=hint,
        )
        for example, question in asked_of(result).items()
    }


def choice_logprobs(folder: Path, prompts: dict[str, str]) -> dict[str, tuple[float, float]]:
    """Log-probabilities of " A" and " B" by stock code, prompt by prompt."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (true,), (false,) = (tokenizer(choice, add_special_tokens=False).input_ids for choice in (" A", " B"))
    found = {}
    for example, prompt in prompts.items():
        with torch.inference_mode():
            logprobs = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1].log_softmax(-1)
        found[example] = (float(logprobs[true]), float(logprobs[false]))
    return found


def check(result: Result, expected: dict[str, tuple[float, float]]) -> None:
    rows = (
        result.tables["scores"].merge(result.tables["other_scores"], on="example_id").set_index("example_id")
    )
    assert len(rows) == N
    for example, (true, false) in expected.items():
        p_true, p_false = math.exp(true), math.exp(false)
        assert rows.score[example] == pytest.approx(p_true / (p_true + p_false), abs=1e-4)
        assert rows.log_p_true[example] == pytest.approx(true, abs=1e-3)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2"])
def test_a_score_is_the_models_probability_of_true(
    name: str, cells: Cells, checkpoint: Callable[[str], Path]
) -> None:
    result = cells(name, "probe.num_few_shot=0")
    check(result, choice_logprobs(checkpoint(name), blocks(result)))
    assert result.tables["scores"].score.between(0, 1).all()
    assert {"ece", "brier", "ece_ci_low"} <= result.metrics.keys()
    assert (result.folder / "figures" / "reliability.png").exists()


def test_the_greedy_answer_may_stand_first_and_results_say_so(
    cells: Cells, checkpoint: Callable[[str], Path]
) -> None:
    nature, first = (
        cells("llama", "probe.num_few_shot=0", f"probe.order={name}") for name in ("nature", "greedy_first")
    )
    assert nature.key != first.key
    answers, samples = first.tables["answers"].set_index("example_id").answer, first.tables["samples"]
    prompts = {
        example: written_out(
            question,
            [answers[example], *samples[samples.example_id == example].sort_values("sample").answer],
            greedy_first=True,
        )
        for example, question in asked_of(first).items()
    }
    check(first, choice_logprobs(checkpoint("llama"), prompts))


def stored_answers(store: Path, questions: Sequence[Question], folder: Path) -> list[list[str]]:
    """Greedy answer and samples of each question, by the tokens of the prompt that it was asked with."""
    data, config = facts.load(facts.FactsConfig(num_samples=N)), PromptConfig(num_few_shot=2)
    template = ChatTemplate(AutoTokenizer.from_pretrained(folder), None)
    prompts = build_prompts(questions, choose_shots(data, config), config, template)
    rows = pd.concat(map(pd.read_parquet, store.glob("answers/*/*.parquet"))).sort_values("sample")
    return [rows[rows.prompt == prompt.digest].text.tolist() for prompt in prompts]


def test_worked_examples_are_the_models_own_answers_with_their_verdicts(
    cells: Cells, checkpoint: Callable[[str], Path], workdir: Path
) -> None:
    result = cells("llama", "probe.num_few_shot=5", "probe.seed=3")
    shots = draw_shots(facts.load(facts.FactsConfig(num_samples=N)), PromptConfig(num_few_shot=2), 5, 3)
    lead = ""
    for shot, answers in zip(
        shots, stored_answers(workdir / "store", shots, checkpoint("llama")), strict=True
    ):
        right = judge(answers[0], shot.references, Rule.SQUAD).correct
        lead += written_out(shot.text, answers, is_shot=True) + (" A\n" if right else " B\n")
    prompts = {example: lead + block for example, block in blocks(result).items()}
    check(result, choice_logprobs(checkpoint("llama"), prompts))
    hinted = cells("llama", "probe.num_few_shot=5", "probe.seed=3", "probe.hint=true")
    asked = {example: lead + block for example, block in blocks(hinted, hint=True).items()}
    own = hinted.tables["scores"].set_index("example_id").score
    for example, (match, no_match) in choice_logprobs(checkpoint("llama"), asked).items():
        assert own[example] == pytest.approx(1 / (1 + math.exp(no_match - match)), abs=1e-4)
    other = cells("llama", "probe.num_few_shot=5", "probe.seed=4")
    assert other.key != result.key
    assert other.tables["scores"].score.tolist() != result.tables["scores"].score.tolist()


def test_shots_stand_in_no_answer_prompt_and_are_not_asked() -> None:
    data, prompt = facts.load(facts.FactsConfig(num_samples=3600)), PromptConfig(num_few_shot=30, seed=1)
    drawn = draw_shots(data, prompt, 300, seed=2)
    ids = {shot.id for shot in drawn}
    assert len(ids) == 300
    assert not ids & {question.id for question in (*data.questions, *choose_shots(data, prompt))}
    assert drawn != draw_shots(data, prompt, 300, seed=3)
    assert len(draw_shots(data, prompt, 10_000, seed=2)) == len(data.shots) - 30


def test_a_pool_that_is_too_small_is_used_up_and_said(cells: Cells, workdir: Path) -> None:
    rows = [{"id": f"q{i}", "question": f"What is number {i}?", "answers": ["no"]} for i in range(20)]
    (workdir / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = cells("llama", "dataset=jsonl", "dataset.path=few.jsonl")
    assert (
        result.notes["scores"]
        == "p_true is asked with 2 of 20 worked examples: the few-shot pool has no more"
    )


def test_blocks_that_pass_the_context_are_dropped_whole(
    cells: Cells, checkpoint: Callable[[str], Path]
) -> None:
    result = cells("mistral", "probe.num_few_shot=60")
    note = result.notes["scores"]
    kept = int(note.partition("with ")[2].partition(" of 60")[0])
    assert 10 < kept < 60
    assert note.endswith("the context holds no more")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint("mistral"))
    longest = max(len(tokenizer(block).input_ids) for block in blocks(result).values())
    shortest_block = 60
    assert kept * shortest_block + longest < 2048


def test_a_template_wraps_the_prompt_and_the_choice_opens_the_turn(
    cells: Cells, checkpoint: Callable[[str], Path]
) -> None:
    result = cells("llama", "probe.num_few_shot=0", "model.chat_template=default")
    folder = checkpoint("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    samples, answers = result.tables["samples"], result.tables["answers"].set_index("example_id")
    for example in answers.index:
        question = answers.prompt[example].rpartition("<|user|>")[2].partition("</s>")[0]
        texts = [
            answers.answer[example],
            *samples[samples.example_id == example].sort_values("sample").answer,
        ]
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": written_out(question, texts)}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=False,
        )
        with torch.inference_mode():
            logprobs = model(ids).logits[0, -1].log_softmax(-1)
        true, false = (float(logprobs[tokenizer.convert_tokens_to_ids(letter)]) for letter in "AB")
        score = result.tables["scores"].set_index("example_id").score[example]
        assert score == pytest.approx(1 / (1 + math.exp(false - true)), abs=1e-4)


def test_a_lost_part_is_read_again(cells: Cells, workdir: Path) -> None:
    words = ("llama", "decoding.batch_size=3", "probe.num_few_shot=2")
    first = cells(*words)
    for kind in ("choices", "answers"):
        (part,) = workdir.glob(f"store/{kind}/*/part-*.parquet")
        part.unlink()
    again = cells(*words, "results_dir=again")
    assert not again.was_done
    assert again.tables["scores"].equals(first.tables["scores"])


def test_what_cannot_be_asked_is_refused(cells: Cells) -> None:
    with pytest.raises(ConfigError, match=r"probe\.num_few_shot=-1 is negative"):
        PTrue(num_few_shot=-1)
    with pytest.raises(
        ConfigError, match="probe=p_true needs 1 or more samples of each question, and 0 are drawn"
    ):
        compose_cell(["probe=p_true", "decoding=greedy"])
    with pytest.raises(ConfigError, match="does not write ' A' as one token after the prompt"):
        cells("qwen2")  # whose tokenizer class makes letters of the embedded vocabulary
    assert not list(Path("store").glob("answers/*/*.parquet"))


def test_its_seed_follows_the_base_seed() -> None:
    config = compose_cell(["probe=p_true", "seed=5"]).config
    assert isinstance(config.probe, PTrue)
    assert (config.probe.seed, config.probe.num_few_shot, config.decoding.num_generations) == (5, 20, 10)


def test_shots_are_questions_with_references() -> None:
    data = facts.load(facts.FactsConfig(num_samples=3))
    assert all(
        isinstance(shot, Question) and shot.references for shot in draw_shots(data, PromptConfig(), 7, 0)
    )
