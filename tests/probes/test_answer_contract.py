"""Every answer probe there is, found and not listed: its contract, its names, and that its scores say something."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import probegrid.probes
from probegrid.cell.answer_probe import scoring_of
from probegrid.cell.evidence import Asked
from probegrid.cell.gather import entailments_of, gather
from probegrid.cell.others import Others, other_scores
from probegrid.cell.prepare import prepare
from probegrid.cell.shared_words import SharedWords
from probegrid.compose import compose_cell
from probegrid.evaluation.metrics import metric_info
from probegrid.evaluation.ranking import auroc
from probegrid.judges import all_judges
from probegrid.models.pool import ModelPool
from probegrid.plugins import config_classes
from probegrid.probes import AnswerProbe, Probe, Scores
from probegrid.progress import Progress
from probegrid.readings.session import ModelSession
from probegrid.schema import ProbeConfig
from probegrid.testing import check_probe

pytestmark = pytest.mark.slow  # cells of real models, or composed one by one

OURS = {
    name: owner
    for name, owner in config_classes("probes", probegrid.probes, ProbeConfig)
    if issubclass(owner, Probe)
}
ANSWERS = [name for name, owner in OURS.items() if issubclass(owner, AnswerProbe)]
N, FEW = 60, 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def scored(choice: str, store: Path, n: int = N) -> tuple[Scores, Others, list[bool]]:
    """Scores of a composed cell, its own and the judges', and whether each answer is correct."""
    cell = prepare(compose_cell([f"probe={choice}", f"dataset.num_samples={n}", f"store_dir={store}"]))
    assert cell.model is not None
    assert isinstance(cell.probe, AnswerProbe)
    with Progress(Console(file=io.StringIO())) as progress, ModelPool() as pool:
        model = cell.model
        session = ModelSession(cell.config, model.checkpoint, model.tokenizer, None, pool, progress)
        gathered = gather(cell, session)
        assert gathered.answers is not None
        with entailments_of(cell, session, gathered.answers) as entails:
            scores = cell.probe.score(scoring_of(cell, gathered, entails))
            others = other_scores(cell, gathered, Asked(entails, SharedWords()))
    return scores, others, gathered.answers.correct


def test_the_probes_that_there_are() -> None:
    verbalized = {"verbalized", "verbalized_1s", "verbalized_top_k"}
    assert {"gnll", "semantic_entropy", "p_true", "eigenscore", "judges"} | verbalized == set(ANSWERS)
    linear = {"logistic", "p_ik", "sep", "mass_mean", "lda", "pca", "ttpd"}
    trained = linear | {"ccs", "saplma", "mahalanobis", "knn"}
    assert trained | {"control", "text_baseline"} == OURS.keys() - set(ANSWERS)


@pytest.mark.parametrize("choice", OURS)
def test_contract_holds(choice: str) -> None:
    probe = compose_cell([f"probe={choice}"]).config.probe
    assert type(probe) is OURS[choice]
    assert OURS[choice].declared_name() == choice
    check_probe(probe)


def test_every_judge_is_reported_by_the_probe_that_reads_all_of_it(store: Path) -> None:
    _, others, _ = scored("judges", store, FEW)
    assert others.columns.keys() == all_judges().keys() - {"option_confidence"}
    for name, values in others.columns.items():
        assert len(values) == FEW
        assert name.startswith("verbalized") or all(map(math.isfinite, values)), name
        assert metric_info(f"{name}_auroc_ci_low").description
    table = others.table().to_pandas().set_index("score")
    assert (table.description.str.len() > 10).all()
    assert set(json.loads(table.readings["eigenscore"])) == {"answers", "activations"}
    assert set(json.loads(table.readings["rauq"])) == {"answers", "distributions"}
    assert set(json.loads(table.readings["sar"])) == {"answers", "rouge_l"}
    assert table.reading_s["gnll"] < table.reading_s["semantic_entropy"] < table.reading_s["p_true"]


@pytest.mark.parametrize("choice", ["gnll", "semantic_entropy", "eigenscore"])
def test_larger_scores_are_of_answers_that_are_more_often_correct(choice: str, store: Path) -> None:
    scores, others, correct = scored(choice, store)
    assert len(set(scores.own)) > N / 4
    assert len(others.columns) > (5 if choice == "gnll" else 25)
    for name, column in {"own": scores.own, **others.columns}.items():
        if name != "n_tokens":  # of one-word answers says nothing
            assert auroc(correct, column) > 0.6, name


def test_composing_them_imports_no_torch() -> None:
    code = (
        "import sys; from probegrid.compose import compose_cell; "
        f"[compose_cell([f'probe={{p}}']) for p in {list(OURS)}]; "
        "assert not {'torch', 'transformers', 'sklearn', 'scipy'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
