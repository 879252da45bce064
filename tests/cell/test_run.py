"""A cell from end to end, on a random checkpoint: what it leaves behind, and what makes it another cell."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from other_user import another_user, only_root
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForCausalLM, AutoTokenizer

import probegrid
from probegrid.cell.run import Result
from probegrid.errors import StoreError
from probegrid.evaluation.metrics import metric_info

SHORT = ("decoding.max_new_tokens=6",)
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def mixed(random_model: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A recorded cell with right and wrong answers: every other reference is what the model says."""
    folder = tmp_path_factory.mktemp("mixed")
    file = folder / "questions.jsonl"
    questions = [{"id": f"q{number}", "question": f"What is number {number}?"} for number in range(50)]

    def run_with(references: dict[str, str]) -> Result:
        rows = [{**question, "answers": [references.get(question["id"], "no")]} for question in questions]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = ("dataset=jsonl", f"dataset.path={file}", "prompt.num_few_shot=0", *SHORT)
        places = (f"store_dir={folder / 'store'}", f"results_dir={folder / 'results'}")
        return probegrid.run([*random_model, *data, *places, "tracking=none"])

    answers = run_with({}).tables["answers"]
    known = answers[answers.answer.str.contains("[b-z]{3}")].iloc[::2]
    assert 5 < len(known) < len(answers) - 5
    return run_with(dict(zip(known.example_id, known.answer, strict=True)))


def test_files_and_columns_are_those_of_the_contract(mixed: Result) -> None:
    assert mixed.folder.name == mixed.key
    assert {path.relative_to(mixed.folder).as_posix() for path in mixed.folder.rglob("*.*")} == {
        "config.yaml",
        "result.json",
        "scores.parquet",
        "other_scores.parquet",
        "judges.parquet",
        "answers.parquet",
        "examples.html",
        *(f"figures/roc.{ending}" for ending in ("png", "svg")),
        *(f"figures/risk_coverage.{ending}" for ending in ("png", "svg")),
    }
    columns = {file.stem: pq.read_schema(file).names for file in mixed.folder.glob("*.parquet")}
    assert columns["scores"] == ["example_id", "group", "split", "label", "score"]
    assert columns["answers"] == [
        *("example_id", "question", "prompt", "answer", "token_ids", "token_texts", "token_logprobs"),
        *("n_tokens", "ended", "references", "em", "f1", "correct"),
    ]


def test_the_result_says_what_it_is_and_the_config_is_whole(mixed: Result) -> None:
    result = json.loads((mixed.folder / "result.json").read_text())
    assert (result["cell"], result["status"], result["error"]) == (mixed.key, "done", None)
    assert result["metrics"] == dict(mixed.metrics)
    assert {"plan", "versions"} <= result.keys()
    assert result["plan"]
    config = yaml.safe_load((mixed.folder / "config.yaml").read_text())
    assert config["decoding"]["max_new_tokens"] == 6
    assert config["model"]["dtype"] == "float32"


def test_numbers_are_those_of_the_tables(mixed: Result) -> None:
    scores, answers, metrics = mixed.tables["scores"], mixed.tables["answers"], mixed.metrics
    assert metrics["auroc"] == pytest.approx(roc_auc_score(scores.label, scores.score), abs=1e-12)
    assert metrics["auroc_ci_low"] < metrics["auroc"] < metrics["auroc_ci_high"]
    assert metrics["accuracy"] == pytest.approx(scores.label.mean())
    assert (metrics["n"], metrics["n_correct"]) == (len(scores), scores.label.sum())
    assert metrics["f1"] == pytest.approx(answers.f1.mean())
    assert metrics["nll_mean"] == pytest.approx(-scores.score.mean())
    assert not mixed.notes.keys() & {"auroc", "auprc"}


def test_the_score_is_the_log_likelihood_of_the_answer(mixed: Result) -> None:
    rows = mixed.tables["answers"].merge(mixed.tables["scores"], on="example_id")
    assert len(rows) == mixed.metrics["n"]
    assert rows.score.tolist() == pytest.approx([sum(logprobs) for logprobs in rows.token_logprobs])
    assert rows.label.tolist() == rows.correct.tolist() == [f1 >= 0.5 for f1 in rows.f1]
    assert rows.token_ids.map(len).tolist() == rows.n_tokens.tolist()
    assert (
        rows.token_logprobs.map(len).tolist() == rows.n_tokens.clip(lower=1).tolist()
    )  # at least its stop's


def test_other_scores_of_the_reading_stand_beside(mixed: Result) -> None:
    others, answers = mixed.tables["other_scores"], mixed.tables["answers"]
    assert others.columns.tolist() == [
        "example_id",
        "sequence_probability",
        "mean_nll",
        "perplexity",
        "max_token_nll",
        "n_tokens",
        "first_token_entropy",
        "token_sar",
    ]
    assert others.example_id.tolist() == answers.example_id.tolist()
    assert (answers.n_tokens == 0).any()
    means = [sum(logprobs) / len(logprobs) if len(logprobs) else 0.0 for logprobs in answers.token_logprobs]
    assert others.mean_nll.tolist() == pytest.approx(means)
    assert others.perplexity.tolist() == pytest.approx([-math.exp(-mean) for mean in means])
    assert others.n_tokens.tolist() == [-len(ids) for ids in answers.token_ids]
    for name in others.columns[1:]:
        area = roc_auc_score(answers.correct, others[name])
        assert mixed.metrics[f"{name}_auroc"] == pytest.approx(area, abs=1e-12)
        assert mixed.metrics[f"{name}_auroc_ci_low"] < area < mixed.metrics[f"{name}_auroc_ci_high"]
        assert metric_info(f"{name}_auroc_ci_low").description
    assert mixed.metrics["mean_nll_mean"] == pytest.approx(-np.mean(means))
    assert mixed.metrics["perplexity_mean"] == pytest.approx(np.mean(np.exp(-np.array(means))))
    assert mixed.metrics["n_tokens_mean"] == pytest.approx(answers.n_tokens.mean())


@pytest.mark.slow
def test_a_new_judge_scores_what_is_done_from_the_store(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is read again; where the readings are gone, that is said, and the numbers stand."""
    (workdir / "late_judge_module.py").write_text(
        "from probegrid.judges import Evidence, Read, judge\n\n\n@judge(Read.greedy)\n"
        "def letters(evidence: Evidence) -> float:\n"
        '    """The number of letters of the greedy answer."""\n'
        "    return len(evidence.greedy.text)\n"
    )
    command = ["dataset.num_samples=12", "prompt.num_few_shot=2", "tracking=none"]
    before = probegrid.run(command)
    files = sorted(file.name for file in before.folder.rglob("*.*"))
    monkeypatch.syspath_prepend(workdir)
    monkeypatch.setenv("PROBEGRID_PLUGINS", "late_judge_module")
    again = probegrid.run(command)
    assert again.was_done
    assert "is scored by letters too" in " ".join(capfd.readouterr().err.split())
    assert sorted(file.name for file in again.folder.rglob("*.*")) == files
    assert "letters" in (again.folder / "examples.html").read_text()
    letters = again.tables["other_scores"].letters.tolist()
    assert letters == [-len(text) for text in again.tables["answers"].answer]
    for name in ("auroc", "load_s", "read_s"):
        assert again.metrics[name] == pytest.approx(before.metrics[name], abs=0.01), name
    assert "letters_auroc" in again.metrics
    probegrid.run(command)
    assert "is scored by" not in capfd.readouterr().err
    source = (workdir / "late_judge_module.py").read_text()
    (workdir / "later_judge_module.py").write_text(source.replace("letters", "characters"))
    shutil.rmtree(workdir / "store")
    monkeypatch.setenv("PROBEGRID_PLUGINS", "late_judge_module,later_judge_module")
    kept = probegrid.run(command)
    assert "its readings are not in the store any more; force=true" in " ".join(
        capfd.readouterr().err.split()
    )
    assert kept.metrics == again.metrics


def test_the_first_tokens_entropy_is_that_of_stock_logits(
    mixed: Result, checkpoint: Callable[[str], Path]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint("llama"), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint("llama"))
    rows = mixed.tables["answers"].merge(mixed.tables["other_scores"], on="example_id")
    for row in rows.iloc[:5].itertuples():
        with torch.inference_mode():
            logits = model(**tokenizer(row.prompt, return_tensors="pt")).logits[0, -1]
        entropy = torch.distributions.Categorical(logits=logits).entropy()
        assert row.first_token_entropy == pytest.approx(-float(entropy), abs=1e-4)


def test_other_references_are_another_cell_but_the_same_answers(mixed: Result) -> None:
    cells = sorted(path for path in mixed.folder.parent.iterdir())
    assert len(cells) == 2
    first, second = (pd.read_parquet(cell / "answers.parquet") for cell in cells)
    assert first.answer.tolist() == second.answer.tolist()


def test_a_finished_cell_is_recognised_and_nothing_is_computed(
    run: Run, random_model: tuple[str, ...], workdir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = run(*random_model, *SHORT, "dataset.num_samples=5")
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    capfd.readouterr()
    again = run(*random_model, *SHORT, "dataset.num_samples=5", "decoding.batch_size=2")
    assert (first.was_done, again.was_done) == (False, True)
    assert again.key == first.key
    assert again.metrics == pytest.approx(first.metrics, nan_ok=True)
    assert again.tables["scores"].equals(first.tables["scores"])
    assert "is done already, nothing is computed again" in " ".join(capfd.readouterr().err.split())
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_one_class_gives_nan_and_the_reason(run: Run, random_model: tuple[str, ...]) -> None:
    result = run(*random_model, *SHORT, "dataset.num_samples=5")
    assert result.metrics["n_correct"] == 0
    assert math.isnan(result.metrics["auroc"])
    assert "all 5 answers are wrong" in result.notes["auroc"]
    assert not (result.folder / "figures" / "roc.png").exists()


@pytest.mark.slow
def test_samples_stand_beside_the_greedy_answers(run: Run, random_model: tuple[str, ...]) -> None:
    few = (*random_model, *SHORT, "dataset.num_samples=4")
    greedy = run(*few)
    sampled = run(*few, "decoding=sample", "decoding.num_generations=3")
    assert sampled.key != greedy.key
    assert sampled.tables["answers"].answer.tolist() == greedy.tables["answers"].answer.tolist()
    samples = sampled.tables["samples"]
    assert samples.groupby("example_id", sort=False)["sample"].agg(list).tolist() == [[0, 1, 2]] * 4
    assert samples.answer.nunique() > 4


def test_an_architecture_that_cannot_share_a_prefix_works_too(
    run: Run, checkpoint: Callable[[str], Path]
) -> None:
    result = run(
        "model=custom",
        f"model.path={checkpoint('gemma2')}",
        "model.dtype=float32",
        *SHORT,
        "dataset.num_samples=3",
    )
    assert result.metrics["n"] == 3


@pytest.mark.slow
def test_the_result_says_how_the_model_was_read_and_what_that_was_tried_on(run: Run) -> None:
    few = ("dataset.num_samples=4", *SHORT)
    first = json.loads((run(*few).folder / "result.json").read_text())["engine"]["answers"]
    assert first["used"] == "shared prefix"
    assert first["prompts"] == 2
    assert 0 <= first["distance"] < first["allowed"]
    assert first["passed_over"] == {}
    again = run(*few, "results_dir=others")  # nothing is read now
    assert json.loads((again.folder / "result.json").read_text())["engine"]["answers"] == first


@only_root
def test_results_that_could_not_be_written_are_refused_before_anything_is_read(
    run: Run, workdir: Path
) -> None:
    few = ("dataset.num_samples=4", *SHORT)
    done = run(*few)  # which imports what the other user may not
    workdir.chmod(0o777)
    with another_user(workdir):
        assert run(*few).was_done
        with pytest.raises(StoreError, match="results cannot be written: no permission, it belongs to root"):
            run(*few, "seed=1", "store_dir=own")
    assert not (workdir / "own").exists()
    assert [folder.name for folder in (workdir / "results").iterdir()] == [done.key]
