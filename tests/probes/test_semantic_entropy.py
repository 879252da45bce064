"""Semantic entropy of whole cells against plain Python on the recorded samples, and its second model."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from classifiers import entailed_one_by_one, save_classifier
from sklearn.metrics import roc_auc_score

import probegrid
from probegrid.cell.run import Result
from probegrid.compose import compose_cell
from probegrid.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.slow  # cells of real models, or composed one by one

N = 50
SAMPLES = 4


@pytest.fixture(scope="module")
def overrides(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A random model asked a few questions; half of the references are what it says."""
    folder = tmp_path_factory.mktemp("semantic")
    model = ["model=custom", f"model.path={checkpoint('llama')}", "model.dtype=float32"]
    places = [f"store_dir={folder / 'store'}", f"results_dir={folder / 'results'}", "tracking=none"]
    small = ["decoding.max_new_tokens=6", f"decoding.num_generations={SAMPLES}", "prompt.num_few_shot=0"]
    small.append("decoding.temperature=0.3")  # else no sample of a random model is empty
    file = folder / "questions.jsonl"
    asked = [
        {"id": f"q{number}", "question": f"What is number {number}?", "answers": ["no"]}
        for number in range(N)
    ]
    common = [*model, *places, *small, "dataset=jsonl", f"dataset.path={file}", "probe=semantic_entropy"]
    write(file, asked)
    answers = probegrid.run(common).tables["answers"]
    given = dict(zip(answers.example_id, answers.answer, strict=True))
    write(
        file,
        [row | {"answers": [given.get(row["id"]) or "no"]} if row["id"] < "q25" else row for row in asked],
    )
    return common


def write(file: Path, rows: list[dict[str, object]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def samples_of(result: Result) -> dict[str, pd.DataFrame]:
    return dict(iter(result.tables["samples"].groupby("example_id", sort=False)))


def likelihoods(rows: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Sum and mean log-probability of each sample; of one without tokens, its stop's."""
    assert (rows.token_logprobs.map(len) == rows.n_tokens.clip(lower=1)).all()
    return [sum(each) for each in rows.token_logprobs], [
        sum(each) / len(each) for each in rows.token_logprobs
    ]


def expected_entropy(rows: pd.DataFrame, clusters: list[int]) -> float:
    weights: dict[int, float] = defaultdict(float)
    for cluster, total, mean in zip(clusters, *likelihoods(rows), strict=True):
        assert total <= 0
        weights[cluster] += math.exp(mean)
    total = sum(weights.values())
    return -sum(weight / total * math.log(weight / total) for weight in weights.values())


def test_scores_are_those_of_the_recorded_samples(overrides: list[str]) -> None:
    result = probegrid.run(overrides)
    scores, others = (result.tables[name].set_index("example_id") for name in ("scores", "other_scores"))
    samples = samples_of(result)
    assert any(0 in rows.n_tokens.tolist() for rows in samples.values())
    for example, rows in samples.items():
        texts = [
            "".join(c for c in text.lower() if c.isalnum() or c.isspace()).split() for text in rows.answer
        ]
        names = [" ".join(word for word in text if word not in ("a", "an", "the")) for text in texts]
        clusters = [names.index(name) for name in names]
        assert scores.score[example] == pytest.approx(-expected_entropy(rows, clusters), abs=1e-6)
        shares = [clusters.count(cluster) / SAMPLES for cluster in set(clusters)]
        other = others.loc[example]
        assert other.discrete_semantic_entropy == pytest.approx(
            sum(p * math.log(p) for p in shares), abs=1e-9
        )
        sums, means = likelihoods(rows)
        assert other.predictive_entropy == pytest.approx(sum(sums) / SAMPLES, rel=1e-6)
        assert other.length_normalized_entropy == pytest.approx(sum(means) / SAMPLES, rel=1e-6)
    answers = result.tables["answers"].set_index("example_id")
    assert others.gnll.tolist() == pytest.approx([sum(logprobs) for logprobs in answers.token_logprobs])
    assert (others.gnll < 0).all()
    for name in others.columns:
        assert result.metrics[f"{name}_auroc"] == pytest.approx(roc_auc_score(scores.label, others[name]))


def test_an_entailment_model_clusters_as_pair_by_pair(overrides: list[str], tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "classifier")
    exact, result = probegrid.run(overrides), probegrid.run([*overrides, f"probe.entailment={folder}"])
    assert result.key != exact.key
    drawn, alike = (each.tables["samples"].drop(columns="cluster") for each in (result, exact))
    assert drawn.equals(alike)
    scores = result.tables["scores"].set_index("example_id").score
    texts_of = {
        example: [f"What is number {example.removeprefix('q')}? {answer}" for answer in rows.answer]
        for example, rows in samples_of(result).items()
    }
    pairs = sorted({pair for texts in texts_of.values() for pair in itertools.permutations(texts, 2)})
    entailed = dict(zip(pairs, entailed_one_by_one(folder, pairs), strict=True))
    n_joined = 0
    for example, rows in samples_of(result).items():
        texts = texts_of[example]
        firsts: list[int] = []
        clusters: list[int] = []
        for number, text in enumerate(texts):
            for cluster, first in enumerate(firsts):
                mutual = entailed[texts[first], text] and entailed[text, texts[first]]
                if text == texts[first] or mutual:
                    clusters.append(cluster)
                    n_joined += text != texts[first]
                    break
            else:
                clusters.append(len(firsts))
                firsts.append(number)
        assert scores[example] == pytest.approx(-expected_entropy(rows, clusters), abs=1e-6)
    assert n_joined > 0
    assert result.metrics["read_s"] > exact.metrics["read_s"]


def test_the_same_classifier_elsewhere_asks_nothing_again(overrides: list[str], tmp_path: Path) -> None:
    store = Path(next(o for o in overrides if o.startswith("store_dir=")).partition("=")[2])
    probegrid.run([*overrides, f"probe.entailment={save_classifier(tmp_path / 'one')}"])
    parts = {part: part.stat().st_mtime_ns for part in store.glob("entailments/*/*.parquet")}
    probegrid.run(
        [*overrides, f"probe.entailment={save_classifier(tmp_path / 'two')}", "seed=1", *SAME_ANSWERS]
    )
    assert {part: part.stat().st_mtime_ns for part in store.glob("entailments/*/*.parquet")} == parts


SAME_ANSWERS = ("dataset.seed=0", "prompt.seed=0", "decoding.seed=0")


def test_it_brings_its_samples_and_refuses_to_go_without() -> None:
    config = compose_cell(["probe=semantic_entropy"]).config
    assert (config.decoding.do_sample, config.decoding.num_generations) == (True, 10)
    assert not compose_cell(["probe=gnll"]).config.decoding.do_sample
    for wrong, drawn in (("decoding=greedy", 0), ("decoding.num_generations=1", 1)):
        with pytest.raises(
            ConfigError, match=f"probe=semantic_entropy needs 2 or more samples .* and {drawn} are"
        ):
            compose_cell(["probe=semantic_entropy", wrong])


def test_an_entailment_model_that_is_none_is_refused_before_anything_is_read(overrides: list[str]) -> None:
    with pytest.raises(
        CheckpointError, match=r"probe\.entailment=\./nowhere is neither a folder that exists nor"
    ):
        probegrid.run([*overrides, "probe.entailment=./nowhere"])
    with pytest.raises(CheckpointError, match="no label 'entailment'"):
        probegrid.run([*overrides, "probe.entailment=" + overrides[1].partition("=")[2]])
    with pytest.raises(ConfigError, match=r"probe\.entailment is empty"):
        compose_cell(["probe=semantic_entropy", "probe.entailment=''"])
