"""``action=score``: a saved probe on other statements, and the folders, models and datasets it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from in_process import run_main
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForCausalLM, AutoTokenizer

import probegrid
from probegrid.compose import compose_cell
from probegrid.embedded import world
from probegrid.models.checkpoint import find_checkpoint

pytestmark = pytest.mark.slow  # cells of real models, or composed one by one

LAYER = 5
OWN = ("dataset=facts_statements", "dataset.num_samples=80")
UNSEEN = world.statements(1)[:40]
Invoke = Callable[..., tuple[int, str]]


@dataclass(frozen=True)
class Folders:
    """Recorded cells and what they share."""

    probe: Path
    """A logistic probe on the embedded model."""
    gnll: Path
    places: tuple[str, ...]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("scoring")
    places = (f"store_dir={root / 'store'}", f"results_dir={root / 'results'}", "tracking=none")
    probe = probegrid.run([*places, *OWN, "probe=logistic", f"probe.layers=[2,{LAYER}]"])
    assert probe.metrics["layer"] == LAYER
    return Folders(probe.folder, probegrid.run([*places, "dataset.num_samples=3"]).folder, places)


@pytest.fixture
def score(workdir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Invoke:
    """Run ``probegrid action=score`` in this process: (exit status, what it wrote to stderr)."""

    def run_score(*overrides: str) -> tuple[int, str]:
        status, _, err = run_main(("action=score", "tracking=none", *overrides), monkeypatch, capfd)
        return status, err

    return run_score


def write_jsonl(path: Path, rows: Sequence[dict[str, object]]) -> tuple[str, ...]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ("dataset=jsonl", f"dataset.path={path}", "dataset.num_samples=1000")


@pytest.fixture
def bare(workdir: Path) -> tuple[str, ...]:
    """Statements without labels."""
    rows = [{"id": f"u{number}", "statement": one.text} for number, one in enumerate(UNSEEN)]
    return (*write_jsonl(workdir / "bare.jsonl", rows), "dataset.labelled=false")


@pytest.fixture
def labelled(workdir: Path) -> tuple[str, ...]:
    rows = [{"statement": one.text, "label": one.is_true} for one in UNSEEN]
    return write_jsonl(workdir / "labelled.jsonl", rows)


def only_folder(workdir: Path) -> Path:
    (folder,) = (workdir / "results").glob("[!.]*")  # locks lie beside it
    return folder


def by_hand(texts: Sequence[str], probe: Path) -> list[float]:
    """The probe on the hidden states of stock transformers, a statement at a time."""
    folder = find_checkpoint(compose_cell([]).config.model).name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tensors, layers = load_file(probe / "probe.safetensors"), json.loads((probe / "probe.json").read_text())
    row = layers["layers"].index(LAYER)
    scores = []
    for text in texts:
        encoded = tokenizer(text, return_offsets_mapping=True)
        last = len(text) - 1
        (at,) = [token for token, (a, b) in enumerate(encoded["offset_mapping"]) if a <= last < b]
        with torch.no_grad():
            output = model(torch.tensor([encoded["input_ids"]]), output_hidden_states=True)
        state = output.hidden_states[LAYER][0, at].bfloat16().double()  # as the store keeps it
        scores.append(float(state @ tensors["weights"][row].double() + tensors["bias"][row]))
    return scores


def test_each_statement_gets_the_score_of_the_probe(
    score: Invoke, folders: Folders, bare: tuple[str, ...], workdir: Path
) -> None:
    status, stderr = score(f"probe.from={folders.probe}", *bare)
    assert status == 0, stderr
    folder = only_folder(workdir)
    rows = pd.read_parquet(folder / "statements.parquet").sort_values(
        "example_id", key=lambda ids: ids.str[1:].astype(int)
    )
    assert list(rows) == ["example_id", "text", "score", "probability", "called_true"]
    assert rows.text.tolist() == [one.text for one in UNSEEN]
    expected = by_hand(rows.text.tolist(), folders.probe)
    spread = pd.Series(expected).std()
    assert rows.score.tolist() == pytest.approx(
        expected, abs=spread / 100
    )  # bfloat16 may round the other way
    threshold = json.loads((folders.probe / "probe.json").read_text())["threshold"]
    assert rows.called_true.tolist() == (rows.score > threshold).tolist()
    choices, of_probe = (
        json.loads((each / "result.json").read_text())["choices"] for each in (folder, folders.probe)
    )
    assert {**choices, "dataset": of_probe["dataset"]} == of_probe  # and not the default probe
    assert (rows.probability.rank() == rows.score.rank()).all()
    assert rows.probability.between(0, 1).all()
    assert str(folder.relative_to(workdir)) in " ".join(stderr.split())
    assert UNSEEN[0].text in stderr


def test_without_labels_nothing_is_measured(
    score: Invoke, folders: Folders, bare: tuple[str, ...], workdir: Path
) -> None:
    assert score(f"probe.from={folders.probe}", *bare)[0] == 0
    metrics = json.loads((only_folder(workdir) / "result.json").read_text())["metrics"]
    assert metrics["n"] == len(UNSEEN)
    assert not metrics.keys() & {"auroc", "accuracy", "n_correct"}
    assert pd.read_parquet(only_folder(workdir) / "scores.parquet").label.isna().all()


def test_with_labels_the_metrics_are_those_of_the_scores(
    score: Invoke, folders: Folders, labelled: tuple[str, ...], workdir: Path
) -> None:
    status, stderr = score(f"probe.from={folders.probe}", *labelled)
    assert status == 0, stderr
    result = json.loads((only_folder(workdir) / "result.json").read_text())
    scores = pd.read_parquet(only_folder(workdir) / "scores.parquet")
    assert list(scores) == ["example_id", "group", "split", "label", "score"]
    assert (result["status"], result["metrics"]["n"]) == ("done", len(UNSEEN))
    assert result["metrics"]["n_correct"] == sum(one.is_true for one in UNSEEN) == scores.label.sum()
    assert result["metrics"]["auroc"] == pytest.approx(roc_auc_score(scores.label, scores.score), abs=1e-12)


def test_a_probe_scores_its_own_statements_as_it_did(score: Invoke, folders: Folders, workdir: Path) -> None:
    status, stderr = score(f"probe.from={folders.probe}", *OWN, folders.places[0])
    assert status == 0, stderr
    again, first = (
        pd.read_parquet(cell / "scores.parquet") for cell in (only_folder(workdir), folders.probe)
    )
    assert again.example_id.tolist() == first.example_id.tolist()
    assert again.score.tolist() == first.score.tolist()
    leaky = json.loads((only_folder(workdir) / "result.json").read_text())["notes"]["leakage"]
    assert "are word for word among those the probe learned from" in leaky
    assert leaky in stderr


def test_statements_that_the_probe_did_not_learn_from_are_not_called_leaky(
    score: Invoke, folders: Folders, workdir: Path
) -> None:
    other = write_jsonl(workdir / "other.jsonl", [{"statement": "Snow is white.", "label": 1}])
    assert score(f"probe.from={folders.probe}", *other)[0] == 0
    assert "leakage" not in json.loads((only_folder(workdir) / "result.json").read_text())["notes"]


@pytest.mark.parametrize("content", [None, b"no parquet", "other columns"])
def test_a_probe_without_the_statements_that_it_learned_from_scores(
    score: Invoke, folders: Folders, bare: tuple[str, ...], workdir: Path, content: bytes | str | None
) -> None:
    folder = Path(shutil.copytree(folders.probe, workdir / "theirs"))
    (folder / "result.json").unlink()  # and with it the checksums
    (folder / "statements.parquet").unlink()
    if isinstance(content, bytes):
        (folder / "statements.parquet").write_bytes(content)
    elif content is not None:
        pd.DataFrame({"example_id": ["a"]}).to_parquet(folder / "statements.parquet")
    status, stderr = score(f"probe.from={folder}", *bare)
    assert status == 0, stderr
    assert "leaky" not in stderr


def test_the_page_calls_statements_as_the_table_does(
    score: Invoke, folders: Folders, labelled: tuple[str, ...], workdir: Path
) -> None:
    assert score(f"probe.from={folders.probe}", *labelled)[0] == 0
    saved = json.loads((folders.probe / "probe.json").read_text())
    page = (only_folder(workdir) / "examples.html").read_text()
    assert f'"threshold":{saved["threshold"]},' in page
    assert f'"layer":{LAYER}' in page


def test_a_probe_of_answers_is_refused_by_what_it_reads(
    score: Invoke, folders: Folders, bare: tuple[str, ...], workdir: Path
) -> None:
    of_answers = workdir / "of_answers"
    shutil.copytree(folders.probe, of_answers)
    description = json.loads((of_answers / "probe.json").read_text()) | {"positions": "answer_last"}
    (of_answers / "probe.json").write_text(json.dumps(description))
    (of_answers / "result.json").unlink()
    outcome = score(f"probe.from={of_answers}", *bare)
    check_refused(*outcome, "reads the model's answers (probe.positions=answer_last)", workdir)


def test_a_folder_without_a_probe_is_one_sentence_and_status_2(
    score: Invoke, folders: Folders, bare: tuple[str, ...], workdir: Path
) -> None:
    wrong = {
        (): "needs probe.from=<folder of a cell with a saved probe>",
        ("probe.from=nowhere",): "probe.from=nowhere holds no probe.safetensors",
        (
            f"probe.from={folders.gnll}",
        ): "give the folder of a done cell with probe=logistic or probe=mass_mean",
    }
    for overrides, words in wrong.items():
        check_refused(*score(*overrides, *bare), words, workdir)


def test_an_address_is_no_folder_of_results(score: Invoke, folders: Folders, workdir: Path) -> None:
    outcome = score(
        f"probe.from={folders.probe}", "dataset=facts_statements", "results_dir=s3://bucket/results"
    )
    check_refused(*outcome, "results_dir=s3://bucket/results is an address; give a folder", workdir)


def test_questions_are_refused(score: Invoke, folders: Folders, workdir: Path) -> None:
    outcome = score(f"probe.from={folders.probe}", "dataset=facts")
    check_refused(*outcome, "dataset=facts holds questions", workdir)


def test_a_changed_checkpoint_is_refused(
    score: Invoke, checkpoint: Callable[[str], Path], bare: tuple[str, ...], workdir: Path
) -> None:
    copy = Path(shutil.copytree(checkpoint("llama"), workdir / "copy"))
    model = (
        "model=custom",
        f"model.path={copy}",
        "model.dtype=float32",
        "results_dir=cells",
        "tracking=none",
    )
    few = ("dataset=facts_statements", "dataset.num_samples=30", "probe=mass_mean", "probe.layers=[1]")
    trained = probegrid.run([*model, *few])
    assert score(f"probe.from={trained.folder}", *bare, "results_dir=unchanged")[0] == 0
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    check_refused(
        *score(f"probe.from={trained.folder}", *bare), "score with that checkpoint, or train", workdir
    )


def check_refused(status: int, stderr: str, words: str, workdir: Path) -> None:
    assert "Traceback" not in stderr
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("probegrid: ")
    assert words in last
    assert status == 2
    assert not (workdir / "results").exists()


@pytest.fixture
def foreign(folders: Folders, workdir: Path) -> Callable[..., Path]:
    """The probe's folder as somebody else may give it: changed at will, checksums left out."""

    def change(**model: object) -> Path:
        folder = Path(shutil.copytree(folders.probe, workdir / "theirs"))
        (folder / "result.json").unlink()
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["model"] |= model
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    return change


@pytest.mark.parametrize("typed", [(), ("model.trust_remote_code=false",)], ids=" ".join)
def test_a_folder_from_someone_else_runs_no_code(
    score: Invoke,
    foreign: Callable[..., Path],
    bare: tuple[str, ...],
    checkpoint: Callable[[str], Path],
    workdir: Path,
    typed: tuple[str, ...],
) -> None:
    model = Path(shutil.copytree(checkpoint("llama"), workdir / "model"))
    ran = f"open({str(workdir / 'ran')!r}, 'w').close()\n"
    for name in ("configuration_own", "tokenization_own"):
        (model / f"{name}.py").write_text(ran)
    own = {"AutoConfig": "configuration_own.Own", "AutoTokenizer": ["tokenization_own.Own", None]}
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps(content | {"auto_map": own}))
    folder = foreign(path=str(model), trust_remote_code=True)
    status, said = score(f"probe.from={folder}", *bare, *typed)
    assert status == 2
    assert "if you trust it, type model.trust_remote_code=true" in said
    status, said = score(f"probe.from={foreign_without_trust(folder)}", *bare, *typed)
    assert status == 2  # it is another checkpoint than the probe's
    assert not (workdir / "ran").exists()


def foreign_without_trust(folder: Path) -> Path:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["trust_remote_code"] = False
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_nothing_of_this_machine_is_read_for_a_folder_from_someone_else(
    score: Invoke, foreign: Callable[..., Path], bare: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    folder = foreign(path="someone/${oc.env:HF_TOKEN}")
    status, said = score(f"probe.from={folder}", *bare)
    assert status == 2
    assert "holds an interpolation" in said
    assert "hf_mine" not in said


def test_a_damaged_probe_is_refused(
    score: Invoke, folders: Folders, bare: tuple[str, ...], workdir: Path
) -> None:
    folder = Path(shutil.copytree(folders.probe, workdir / "copied"))
    file = folder / "probe.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    status, said = score(f"probe.from={folder}", *bare)
    assert status == 1
    assert "probe.safetensors is damaged; run the cell of the saved probe again" in said


def test_scores_are_sent_to_mlflow_and_where_they_are_not_the_status_says_so(
    score: Invoke, folders: Folders, bare: tuple[str, ...], workdir: Path, migrated: Path
) -> None:
    from mlflow import MlflowClient
    from mlflow_server import free_port

    shutil.copy(migrated, workdir / "mlflow.db")
    here = (f"probe.from={folders.probe}", *bare, "tracking.backend=mlflow")
    status, _ = score(*here, f"tracking.uri=sqlite:///{workdir}/mlflow.db")
    assert status == 0
    client = MlflowClient(f"sqlite:///{workdir}/mlflow.db")
    experiment = client.get_experiment_by_name("probegrid")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["n"] == len(UNSEEN)
    assert run.data.tags["probegrid.cell"] == only_folder(workdir).name
    status, said = score(*here, f"tracking.uri=http://127.0.0.1:{free_port()}")
    assert status == 1
    assert "MLflow does not have them" in said


def write_statements(folder: Path, name: str, statements: Sequence[world.Statement]) -> str:
    """Two lists, the second of which denies the first; their paths with a comma between."""
    for prefix, denies in (("", False), ("neg_", True)):
        rows = [
            (one.text.replace(" is ", " is not ") if denies else one.text, int(one.is_true is not denies))
            for one in statements
        ]
        pd.DataFrame(rows, columns=["statement", "label"]).to_csv(folder / f"{prefix}{name}.csv", index=False)
    return f"{folder / name}.csv,{folder / f'neg_{name}'}.csv"


@pytest.mark.parametrize(
    "probe",
    [
        ("knn", "probe.k=5"),
        ("knn", "probe.labelled=false", "probe.k=3"),
        ("mahalanobis",),
        ("saplma",),
        ("lda",),
        ("ttpd",),
        ("ccs", "probe.restarts=2", "probe.epochs=200"),
        ("logistic", "probe.joined=true"),
        ("knn", "probe.joined=true"),
    ],
    ids=" ".join,
)
def test_any_probe_is_tested_elsewhere_and_scores_as_it_did(
    probe: tuple[str, ...], score: Invoke, folders: Folders, workdir: Path
) -> None:
    """Transfer while it is trained, and ``action=score`` afterwards, say the same of the same statements."""
    statements = world.statements(1)
    own = write_statements(workdir, "own", statements[:60])
    write_statements(workdir, "far", statements[60:90])
    name, *settings = probe
    trained = probegrid.run(
        [
            *(*folders.places, "dataset=statements", f"dataset.path='{own}'", f"probe={name}", *settings),
            *("probe.layers=[2,5]", f"probe.test_on=[statements:{workdir / 'far.csv'}]"),
        ]
    )
    found = []
    for path in (own, str(workdir / "far.csv")):
        before = set((workdir / "results").glob("[!.]*"))
        words = ("dataset=statements", f"dataset.path='{path}'", folders.places[0])
        status, stderr = score(f"probe.from={trained.folder}", *words)
        assert status == 0, stderr
        found += set((workdir / "results").glob("[!.]*")) - before
    first, scored = trained.tables["scores"], pd.read_parquet(found[0] / "scores.parquet")
    assert scored.example_id.tolist() == first.example_id.tolist()
    assert scored.score.tolist() == pytest.approx(first.score.tolist(), rel=1e-9, abs=1e-12)
    elsewhere = json.loads((found[1] / "result.json").read_text())["metrics"]
    assert elsewhere["auroc"] == trained.metrics["transfer_auroc_far"]
    table = trained.tables["transfer"].set_index("tested_on")
    assert table.auroc["far"] == elsewhere["auroc"]
    assert table.accuracy["far"] == elsewhere["accuracy"]
