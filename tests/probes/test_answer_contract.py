"""Every answer probe, on a cell of the embedded model: finite scores, their names known, references never looked at."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from probegrid.compose import compose_cell
from probegrid.data import load
from probegrid.data.example import QuestionSet
from probegrid.evaluation.metrics import OTHER_SCORES, metric_info
from probegrid.evaluation.ranking import auroc
from probegrid.models.checkpoint import find_checkpoint
from probegrid.models.load import LoadedModel
from probegrid.probes import AnswerProbe, Scores, Scoring
from probegrid.progress import Progress
from probegrid.readings.session import Respondent

PROBES = ("gnll", "semantic_entropy", "p_true")
N = 60


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    import torch
    from transformers import AutoModelForCausalLM

    folder = find_checkpoint(compose_cell([]).config.model).name
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return LoadedModel(loaded, load_s=0.0)


def scored(choice: str, store: Path, model: LoadedModel, data: QuestionSet | None = None) -> Scores:
    config = compose_cell([f"probe={choice}", f"dataset.num_samples={N}", f"store_dir={store}"]).config
    assert isinstance(config.probe, AnswerProbe)
    with Progress(Console(file=io.StringIO())) as progress:
        respondent = Respondent(config, find_checkpoint(config.model), lambda: model, progress)
        asked = load(config.dataset)
        assert isinstance(asked, QuestionSet)
        config.probe.check(respondent)
        return config.probe.score(Scoring(data or asked, respondent.answer(asked), respondent))


@pytest.mark.parametrize("choice", PROBES)
def test_contract_holds(choice: str, store: Path, model: LoadedModel) -> None:
    config = compose_cell([f"probe={choice}"]).config
    assert isinstance(config.probe, AnswerProbe)
    scores = scored(choice, store, model)
    columns = {"own": scores.own, **scores.others}
    assert all(len(column) == N and np.isfinite(column).all() for column in columns.values())
    assert len(set(scores.own)) > N / 4
    if config.probe.is_probability:
        assert all(0 <= score <= 1 for score in scores.own)
    assert scores.others.keys() <= OTHER_SCORES.keys()
    assert all(metric_info(f"{name}_auroc_ci_low").description for name in scores.others)
    assert scored(choice, store, model) == scores


@pytest.mark.parametrize("choice", PROBES)
def test_references_of_what_is_asked_change_no_score(choice: str, store: Path, model: LoadedModel) -> None:
    data = load(compose_cell([f"dataset.num_samples={N}"]).config.dataset)
    assert isinstance(data, QuestionSet)
    changed = tuple(dataclasses.replace(question, references=("no",)) for question in data.questions)
    blind = scored(choice, store, model, dataclasses.replace(data, questions=changed))
    assert blind.own == scored(choice, store, model).own


@pytest.mark.parametrize("choice", ["gnll", "semantic_entropy"])
def test_larger_scores_are_of_answers_that_are_more_often_correct(
    choice: str, store: Path, model: LoadedModel
) -> None:
    config = compose_cell([f"dataset.num_samples={N}", f"store_dir={store}", f"probe={choice}"]).config
    data = load(config.dataset)
    assert isinstance(data, QuestionSet)
    with Progress(Console(file=io.StringIO())) as progress:
        reading = Respondent(config, find_checkpoint(config.model), lambda: model, progress).answer(data)
    correct = [
        answer.text in question.references
        for answer, question in zip(reading.greedy, data.questions, strict=True)
    ]
    scores = scored(choice, store, model)
    for name, column in {"own": scores.own, **scores.others}.items():
        if name != "n_tokens":  # of one-word answers says nothing
            assert auroc(correct, column) > 0.6, name


def test_composing_them_imports_no_torch() -> None:
    code = (
        "import sys; from probegrid.compose import compose_cell; "
        f"[compose_cell([f'probe={{p}}']) for p in {PROBES}]; "
        "assert not {'torch', 'transformers', 'sklearn', 'scipy'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
