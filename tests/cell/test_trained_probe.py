"""A cell of a trained probe from end to end: what it finds, what it leaves behind, what it refuses."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import zoo
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForImageTextToText

import probegrid
from probegrid.cell.gather import gather
from probegrid.cell.prepare import prepare
from probegrid.cell.run import Result
from probegrid.cli import main
from probegrid.compose import compose_cell
from probegrid.data.example import StatementSet
from probegrid.embedded import tokenizer, world
from probegrid.errors import ConfigError
from probegrid.evaluation.summary import SMALL_SAMPLES
from probegrid.models.pool import ModelPool
from probegrid.progress import Progress
from probegrid.readings.session import ModelSession

pytestmark = pytest.mark.slow  # cells of real models, or composed one by one

Run = Callable[..., Result]
Invoke = Callable[..., tuple[int, str]]

STATEMENTS = ("dataset=facts_statements", "probe=logistic", "probe.layers=all")
FEW = ("dataset=facts_statements", "dataset.num_samples=60", "probe=logistic", "probe.layers=[4]")
OWN_ANSWERS = ("dataset=facts", "dataset.num_samples=80", "probe=logistic", "probe.layers=[4]")
SCORES = ["example_id", "group", "split", "label", "score"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A store and results that the tests of this module share, so that every reading is made once."""
    folder = tmp_path_factory.mktemp("trained")
    return (f"store_dir={folder / 'store'}", f"results_dir={folder / 'results'}", "tracking=none")


@pytest.fixture(scope="module")
def logistic(places: tuple[str, ...]) -> Result:
    """The cell of the README: all layers of the embedded model on the embedded statements."""
    return probegrid.run([*places, *STATEMENTS])


@pytest.fixture(scope="module")
def own_answers(places: tuple[str, ...]) -> Result:
    """A probe on the model's own answers."""
    return probegrid.run([*places, *OWN_ANSWERS, "probe.positions=answer_last"])


@pytest.fixture
def invoke(workdir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Invoke:
    """Run the command's own ``main`` in this process: (exit status, the last line, which must be a sentence)."""

    def invoke_main(*overrides: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["probegrid", "tracking=none", *overrides])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # main sets it
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        stderr = capfd.readouterr().err
        assert "Traceback" not in stderr
        last = stderr.strip().splitlines()[-1]
        assert last.startswith("probegrid: ")
        return int(end.value.code or 0), last

    return invoke_main


def recorded(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "result.json").read_text())
    return content


def write_statements(path: Path, rows: list[tuple[str, bool]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("statement", "label"), *((text, int(label)) for text, label in rows)])
    return path


def test_truth_is_read_in_the_middle_of_the_model_and_nowhere_else(logistic: Result) -> None:
    metrics, course = logistic.metrics, dict(recorded(logistic.folder)["steps"]["layer_auroc"])
    assert list(course) == list(range(7))
    assert metrics["auroc"] >= 0.9
    assert metrics["auroc"] == pytest.approx(course[metrics["layer"]])
    assert course[0] <= 0.6
    assert metrics["text_auroc"] <= 0.6
    assert metrics["control_auroc_ci_low"] < 0.5 < metrics["control_auroc_ci_high"]
    assert metrics["selectivity"] == pytest.approx(metrics["auroc"] - metrics["control_auroc"])
    assert "leakage" not in logistic.notes


def test_files_and_columns_are_those_of_the_contract(logistic: Result) -> None:
    assert {path.relative_to(logistic.folder).as_posix() for path in logistic.folder.rglob("*.*")} == {
        *("config.yaml", "result.json", "scores.parquet", "probe.safetensors", "probe.json"),
        *("examples.html", "layer_scores.parquet", "statements.parquet"),
        *(
            f"figures/{name}.{ending}"
            for name in ("auroc_by_layer", "projection", "reliability", "roc", "scores")
            for ending in ("png", "svg")
        ),
    }
    assert pq.read_schema(logistic.folder / "scores.parquet").names == SCORES
    assert recorded(logistic.folder)["metrics"] == dict(logistic.metrics)


def test_numbers_are_those_of_the_test_rows(logistic: Result) -> None:
    scores, metrics = logistic.tables["scores"], logistic.metrics
    test = scores[scores.split == "test"]
    called = test.score > metrics["threshold"]
    assert metrics["n"] == len(test)
    assert metrics["auroc"] == pytest.approx(roc_auc_score(test.label, test.score), abs=1e-12)
    assert metrics["accuracy"] == pytest.approx((called == test.label).mean())
    assert metrics["auroc_ci_low"] < metrics["auroc"] < metrics["auroc_ci_high"]


def test_no_group_and_no_statement_is_in_two_splits(logistic: Result) -> None:
    scores = logistic.tables["scores"]
    examples = prepare(compose_cell(STATEMENTS)).examples
    assert isinstance(examples, StatementSet)
    texts = {one.id: one.text for talk in examples.conversations for one in talk.statements}
    assert len(scores) == len(texts) == 248 * 6
    for key in (scores.group, scores.example_id.map(texts), scores.example_id.str.rpartition("/")[0]):
        assert scores.split.groupby(key).nunique().eq(1).all()
    assert scores.split.value_counts(normalize=True).to_dict() == pytest.approx(
        {"train": 0.6, "validation": 0.2, "test": 0.2}, abs=0.03
    )


def test_the_saved_probe_on_raw_activations_gives_the_scores(
    logistic: Result, places: tuple[str, ...]
) -> None:
    cell = prepare(compose_cell([*places, *STATEMENTS]))
    assert cell.model is not None
    assert cell.statements is not None
    layer = int(logistic.metrics["layer"])
    session = ModelSession(
        cell.config, cell.model.checkpoint, cell.model.tokenizer, None, ModelPool(), Progress()
    )
    reading = session.activations(cell.statements.passages, [layer])
    assert session.metrics()["load_s"] == 0
    probe = load_file(logistic.folder / "probe.safetensors")
    row = json.loads((logistic.folder / "probe.json").read_text())["layers"].index(layer)
    expected = reading.values(layer).double() @ probe["weights"][row].double() + probe["bias"][row]
    scores = logistic.tables["scores"]
    assert scores.example_id.tolist() == list(reading.ids)
    assert scores.label.tolist() == list(reading.labels)
    assert scores.score.tolist() == pytest.approx(expected.tolist(), abs=1e-9)


def test_a_finished_cell_is_recognised_and_another_probe_reads_nothing(
    logistic: Result, places: tuple[str, ...]
) -> None:
    store = Path(places[0].removeprefix("store_dir="))
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    again = probegrid.run([*places, *STATEMENTS])
    assert (logistic.was_done, again.was_done) == (False, True)
    assert again.metrics == pytest.approx(logistic.metrics, nan_ok=True)
    other = probegrid.run([*places, *STATEMENTS[:1], "probe=mass_mean", "probe.layers=all"])
    assert not other.was_done
    assert (logistic.metrics["load_s"] > 0, other.metrics["load_s"]) == (True, 0)
    assert other.metrics["auroc"] >= 0.9
    assert other.tables["scores"].split.equals(logistic.tables["scores"].split)
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_losses_of_every_epoch_reach_the_result_and_mlflow(places: tuple[str, ...], tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracked = (*places[:2], "tracking=mlflow", f"tracking.uri={uri}")
    result = probegrid.run([*tracked, *FEW, "probe.optimizer=adam", "probe.epochs=4"])
    steps = recorded(result.folder)["steps"]
    assert (result.folder / "figures" / "training_history.png").is_file()
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("probegrid")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    for name in ("train_loss", "val_loss"):
        epochs, losses = zip(*steps[name], strict=True)
        assert epochs == (1, 2, 3, 4)
        assert losses[-1] < losses[0]
        logged = client.get_metric_history(run.info.run_id, name)
        assert sorted((point.step, point.value) for point in logged) == [tuple(pair) for pair in steps[name]]


def test_the_end_of_a_statement_is_on_questions_the_end_of_the_answer(
    own_answers: Result, places: tuple[str, ...]
) -> None:
    default = probegrid.run([*places, *OWN_ANSWERS])
    assert default.was_done
    assert default.key == own_answers.key
    elsewhere = probegrid.run([*places, *OWN_ANSWERS, "probe.positions=answer_first"])
    assert elsewhere.key != own_answers.key
    saved = json.loads((own_answers.folder / "probe.json").read_text())
    assert saved["positions"] == "answer_last"


def test_labels_of_own_answers_are_their_correctness(own_answers: Result) -> None:
    scores, answers = own_answers.tables["scores"], own_answers.tables["answers"]
    assert list(scores) == SCORES
    both = scores.merge(answers, on="example_id")
    assert len(both) == len(scores) == len(answers) == 80
    assert both.label.tolist() == both.correct.tolist()
    assert 0 < both.correct.sum() < 80


def test_gnll_scores_the_very_answers_that_the_probe_read(
    own_answers: Result, places: tuple[str, ...]
) -> None:
    gnll = probegrid.run([*places, "dataset=facts", "dataset.num_samples=80", "probe=gnll"])
    assert (own_answers.metrics["load_s"] > 0, gnll.metrics["load_s"]) == (True, 0)
    pd.testing.assert_frame_equal(gnll.tables["answers"], own_answers.tables["answers"])
    labels = [result.tables["scores"].set_index("example_id").label for result in (gnll, own_answers)]
    pd.testing.assert_series_equal(*labels)
    rejecting = {"aurc", "augrc", "prr", "risk_at_80", "risk_at_80_ci_low", "coverage_at_risk_10"}
    assert rejecting <= gnll.metrics.keys() & own_answers.metrics.keys()
    assert gnll.metrics["prr_f1_ci_low"] < gnll.metrics["prr_f1"] < gnll.metrics["prr_f1_ci_high"]


@pytest.mark.skipif("PROBEGRID_DATA" not in os.environ, reason="PROBEGRID_DATA is not set")
@pytest.mark.parametrize(
    ("override", "area", "leakage"),
    [
        ("probe.split=leakfree", 0.483, None),
        ("probe.split=random", 0.645, "leaky: "),
        ("probe.split=by_conversation", 0.658, "leaky: "),
        ("dataset.system_prompt=keep", 0.483, "the system prompt says which statements are lies"),
    ],
)
def test_words_alone_on_ntml_and_what_the_result_says_of_leaks(
    run: Run, override: str, area: float, leakage: str | None
) -> None:
    path = Path(os.environ["PROBEGRID_DATA"]) / "ntml/3T3L_500samples.jsonl"
    data = ("dataset=ntml", f"dataset.path={path}", "dataset.num_samples=500", "probe=text_baseline")
    result = run(*data, override)
    assert result.metrics["auroc"] == pytest.approx(area, abs=0.03 if leakage == "leaky: " else 0.02)
    assert result.metrics["load_s"] == 0
    assert (result.notes.keys() & {"leakage"}) == ({"leakage"} if leakage else set())
    assert result.notes.get("leakage", "").startswith(leakage or "")
    assert recorded(result.folder)["notes"] == dict(result.notes)


def test_a_trained_probe_is_tested_on_other_datasets(places: tuple[str, ...], tmp_path: Path) -> None:
    """On statements that stand alone and not in a conversation; on its own dataset, by the test split."""
    rows = [(one.text, one.is_true) for one in world.statements(0)[:120]]
    file = write_statements(tmp_path / "alone.csv", rows)
    tests = f"probe.test_on=[statements:{file},facts_statements]"
    result = probegrid.run([*places, *FEW, "dataset.num_samples=248", "probe.layers=[4,5]", tests])
    table = result.tables["transfer"].set_index("tested_on")
    assert table.trained_on.unique().tolist() == ["facts_statements"]
    assert table.index.tolist() == ["facts_statements", "alone"]
    assert table.n.tolist() == [result.metrics["n"], len(rows)]
    own, alone = table.to_dict("index").values()
    assert own["auroc"] == result.metrics["auroc"]
    for end in ("", "_ci_low", "_ci_high"):
        assert result.metrics[f"transfer_auroc_alone{end}"] == alone[f"auroc{end}"]
    assert alone["auroc_ci_low"] < alone["auroc"] < alone["auroc_ci_high"]
    assert "transfer_auroc_facts_statements" not in result.metrics


def test_a_copy_under_another_name_is_not_taken_for_other_statements(
    places: tuple[str, ...], tmp_path: Path
) -> None:
    """How much of it the probe learned from is said, and a number of the rest stands beside: that of the test split."""
    rows = [(one.text, one.is_true) for one in world.statements(0)[:160]]
    write_statements(tmp_path / "own.csv", rows)
    copy = write_statements(tmp_path / "copy.csv", [(f"{text} ", label) for text, label in rows])
    own = (
        *places,
        "dataset=statements",
        f"dataset.path={tmp_path / 'own.csv'}",
        "probe=logistic",
        "probe.layers=[4]",
    )
    result = probegrid.run([*own, f"probe.test_on=[statements:{copy}]"])
    scores = result.tables["scores"]
    learned = scores.split.isin(["train", "validation"]).mean()
    assert (
        f"leaky: {learned:.0%} of its 160 statements are word for word" in result.notes["transfer_auroc_copy"]
    )
    assert result.metrics["transfer_auroc_copy_unseen"] == pytest.approx(result.metrics["auroc"])
    assert result.metrics["transfer_auroc_copy_ci_low"] < result.metrics["transfer_auroc_copy"]


def test_repeats_and_folds_show_what_the_split_does(places: tuple[str, ...]) -> None:
    repeated = probegrid.run([*places, *FEW, "dataset.num_samples=100", "probe.repeats=3"])
    table = repeated.tables["repeats"]
    assert table["repeat"].tolist() == [0, 1, 2]
    assert table.auroc[0] == repeated.metrics["auroc"]
    assert repeated.metrics["auroc_repeat_mean"] == pytest.approx(table.auroc.mean())
    assert repeated.metrics["auroc_repeat_sd"] == pytest.approx(table.auroc.std())
    assert repeated.metrics["auroc_repeat_sd"] > 0
    folded = probegrid.run([*places, *FEW, "dataset.num_samples=100", "probe.folds=3"])
    assert folded.metrics["load_s"] == 0
    assert folded.metrics["n"] == len(folded.tables["scores"])
    assert folded.tables["scores"].split.eq("test").all()
    assert folded.tables["folds"].n.sum() == folded.metrics["n"]
    assert folded.metrics["auroc"] == pytest.approx(
        roc_auc_score(folded.tables["scores"].label, folded.tables["scores"].score)
    )
    assert dict(recorded(folded.folder)["steps"]["layer_auroc"])[4] == pytest.approx(folded.metrics["auroc"])


def test_what_stands_beside_a_probe(logistic: Result) -> None:
    metrics = logistic.metrics
    for name in (
        "selectivity",
        "text_chars_auroc",
        "mcc",
        "balanced_accuracy",
        "brier_platt",
        "ece_isotonic",
    ):
        assert metrics[f"{name}_ci_low"] <= metrics[name] <= metrics[f"{name}_ci_high"], name
    assert "aurc" not in metrics  # statements are nobody's answers: there is no risk in keeping them
    assert metrics["selectivity_ci_low"] > 0.2
    assert metrics["brier_platt"] == pytest.approx(metrics["brier"], abs=0.02)
    assert "no text recurs" in logistic.notes["control_auroc"]
    assert logistic.notes["ece_platt"] == logistic.notes["ece_isotonic"] == logistic.notes["ece"]


def test_what_stands_beside_a_probe_on_few_says_so_too(places: tuple[str, ...]) -> None:
    """Fewer than ten groups of test statements: of the probe's AUROC, and of those that it is to beat."""
    notes = probegrid.run([*places, *FEW[:1], "dataset.num_samples=24", *FEW[2:]]).notes
    assert SMALL_SAMPLES in notes["auroc"]
    assert notes["text_chars_auroc"] == notes["selectivity"] == notes["auroc"]


def test_another_dataset_by_the_same_name_is_not_taken_for_its_own(
    places: tuple[str, ...], tmp_path: Path
) -> None:
    file = write_statements(
        tmp_path / "facts_statements.csv", [("Two is even.", True), ("Two is odd.", False)]
    )
    with pytest.raises(ConfigError, match="names another facts_statements"):
        probegrid.run([*places, *FEW, f"probe.test_on=[statements:{file}]"])


def one_source(folder: Path) -> tuple[str, ...]:
    write_statements(folder / "one.csv", [(f"{number} is even.", number % 2 == 0) for number in range(40)])
    return ("dataset=statements", "dataset.path=one.csv", "probe.split=leave_one_source_out")


def few_of_a_class(folder: Path) -> tuple[str, ...]:
    write_statements(folder / "few.csv", [(f"{number} is a number.", number > 1) for number in range(40)])
    return ("dataset=statements", "dataset.path=few.csv")


def long_statement(folder: Path) -> tuple[str, ...]:
    rows = [(f"Number {number} is even.", number % 2 == 0) for number in range(40)]
    write_statements(folder / "long.csv", [*rows, (" ".join(["Very"] * 10_000), True)])
    return ("dataset=statements", "dataset.path=long.csv")


def moved_span(folder: Path) -> tuple[str, ...]:
    record = world.conversation("moved", world.statements(0)[:6])
    record["labels"]["statement_level"][2]["char_start"] += 1
    (folder / "moved.jsonl").write_text(json.dumps(record) + "\n")
    return ("dataset=ntml", "dataset.path=moved.jsonl")


def no_labels(folder: Path) -> tuple[str, ...]:
    (folder / "bare.jsonl").write_text(json.dumps({"statement": "Two is even."}) + "\n")
    return ("dataset=jsonl", "dataset.path=bare.jsonl", "dataset.labelled=false")


def asked(*overrides: str) -> Callable[[Path], tuple[str, ...]]:
    return lambda folder: overrides


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (asked("dataset=facts_statements", "probe.layers=[3,7]"), "layer 7 and the model has 6 blocks"),
        (asked("dataset=facts", "probe.layers=[7]"), "layers go from 0 (the embeddings) to 6"),
        (asked("dataset=facts_statements", "probe.positions=answer_last"), "not a position of statements"),
        (asked("dataset=facts", "probe.positions=next_token"), "next_token is not a position of answers"),
        (asked("dataset=facts_statements", "probe.test_on=[facts]"), "probe.test_on=facts holds questions"),
        (
            asked("dataset=facts_statements", "probe.test_on=[statements]"),
            "write its file behind it, probe.test_on=[statements:<file or folder>]",
        ),
        (one_source, "needs two sources or more, and all examples are of one ('one')"),
        (few_of_a_class, "examples whose label is false, and 2 are needed"),
        (long_statement, "long/41 of long/41 is read at token"),
        (moved_span, "statement 2 of conversation moved"),
        (no_labels, "no labels to learn from"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_one_sentence_and_status_2(
    invoke: Invoke, workdir: Path, ask: Callable[[Path], tuple[str, ...]], words: str
) -> None:
    status, sentence = invoke("probe=logistic", "probe.layers=[1]", *ask(workdir))
    assert words in sentence
    assert status == 2
    assert not list((workdir / "results").glob("**/*"))


def test_damaged_weights_are_named_with_status_1(
    invoke: Invoke, checkpoint: Callable[[str], Path], workdir: Path
) -> None:
    copy = Path(shutil.copytree(checkpoint("llama"), workdir / "copy"))
    weights = load_file(copy / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    model = ("model=custom", f"model.path={copy}", "model.dtype=float32")
    status, sentence = invoke(*model, *FEW, "dataset.num_samples=20", "probe.layers=[1,2]")
    assert "at layer 2 are not finite" in sentence
    assert status == 1


@pytest.mark.parametrize("probe", ["answer_first", "answer_mean", "prompt_last", "eigenscore"])
def test_hidden_states_of_answers_to_prompts_that_are_read_both_ways(tmp_path: Path, probe: str) -> None:
    """Those of the whole model, which is told of each token whether it is the prompt's (token types)."""
    vocabulary = tokenizer.build(zoo.CONTEXT)
    folder = zoo.save("paligemma", tmp_path / "paligemma", vocab_size=len(vocabulary))
    tokenizer.save(vocabulary, folder)
    own = ("model=custom", f"model.path={folder}", "model.dtype=float32", f"store_dir={tmp_path}")
    asked = ("dataset=facts", "dataset.num_samples=4", "prompt.num_few_shot=1", "decoding.max_new_tokens=5")
    of_greedy = ("probe=logistic", "probe.layers=[1]", f"probe.positions={probe}")
    of_samples = ("probe=eigenscore",)
    cell = prepare(compose_cell([*own, *asked, *(of_samples if probe == "eigenscore" else of_greedy)]))
    assert cell.model is not None
    (layer,) = cell.layers
    session = ModelSession(
        cell.config, cell.model.checkpoint, cell.model.tokenizer, None, ModelPool(), Progress()
    )
    gathered = gather(cell, session)
    assert gathered.answers is not None
    assert gathered.hidden is not None
    stock = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    reading, wanted = gathered.answers.reading, []
    for prompt, (greedy, *samples) in zip(reading.prompts, reading.generations, strict=True):
        first = len(prompt.token_ids)
        for answer in samples if probe == "eigenscore" else [greedy]:
            row = torch.tensor([[*prompt.token_ids, *answer.token_ids]])
            is_answer = (torch.arange(row.shape[1]) >= first).long().unsqueeze(0)
            with torch.inference_mode():
                states = stock(input_ids=row, token_type_ids=is_answer, output_hidden_states=True)
            assert len(answer.token_ids) > 1
            span = {
                "answer_first": slice(first, first + 1),
                "answer_mean": slice(first, None),
                "prompt_last": slice(first - 1, first),
                "eigenscore": slice(-1, None),
            }[probe]
            wanted.append(states.hidden_states[layer][0, span].mean(0))
    assert len(wanted) == (40 if probe == "eigenscore" else 4)
    found = gathered.hidden.values(layer).float()
    torch.testing.assert_close(found, torch.stack(wanted), rtol=0.01, atol=1e-3)
