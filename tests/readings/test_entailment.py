"""The reading *entailments*: equal to stock code pair by pair, each pair asked once, resumed where it stopped."""

from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from classifiers import FAMILIES, entailed_one_by_one, save_classifier, with_sentencepiece_tokenizer
from rich.console import Console
from safetensors.torch import load_file, save_file

from probegrid.embedded import world
from probegrid.errors import CheckpointError, RunError
from probegrid.models.classifier import Classifier, Pair, Relation, entailment_label, find_classifier
from probegrid.progress import Progress
from probegrid.readings import pairs as pair_reading
from probegrid.readings.entailment import Entailments

TEXTS = ["", "oboe", "a pale-green oboe", "Who plays the tuba? " * 3, "Rome is in Italy.", "Bees make honey"]
PAIRS = list(itertools.permutations(TEXTS, 2))


class Asker:
    """Asks the same classifier again and again; counts how often it was loaded."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.checkpoint = find_classifier(str(folder))
        self.store = store
        self.loaded = 0
        self.rooms: list[tuple[str, int]] = []

    def load(self) -> Classifier:
        self.loaded += 1
        return Classifier.load(
            self.checkpoint, lambda device, needed: self.rooms.append((device.type, needed))
        )

    def open(self, asked_for: str = "answers", store: str = "store") -> Entailments:
        return Entailments(
            self.checkpoint,
            self.load,
            asked_for=asked_for,
            store_dir=str(self.store / store),
            progress=Progress(Console(file=io.StringIO())),
        )

    def ask(self, pairs: Sequence[Pair] = PAIRS, **where: str) -> list[bool]:
        with self.open(**where) as entailments:
            return entailments(pairs)

    def parts(self) -> list[Path]:
        return sorted(self.store.glob("store/entailments/*/*.parquet"))


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("classifiers")
    return {family: save_classifier(root / family, family) for family in FAMILIES}


@pytest.fixture
def asker(classifiers: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asker:
    monkeypatch.setitem(pair_reading.BATCH_TOKENS, "cpu", 100)
    return Asker(classifiers["deberta"], tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_stock_code_pair_by_pair(
    family: str, classifiers: dict[str, Path], tmp_path: Path
) -> None:
    expected = entailed_one_by_one(classifiers[family], PAIRS)
    assert 0.1 < sum(expected) / len(expected) < 0.9
    assert Asker(classifiers[family], tmp_path).ask() == expected


def test_each_pair_is_asked_once(asker: Asker) -> None:
    with asker.open() as entailments:
        first = entailments([*PAIRS[:6], *PAIRS[:6]])
        assert first[:6] == first[6:]
        parts = asker.parts()
        assert entailments(PAIRS[:6]) == first[:6]
        assert asker.parts() == parts
        seconds = entailments.read_s
    assert asker.ask(PAIRS[:6]) == first[:6]
    assert asker.loaded == 1
    assert asker.open().read_s == seconds > 0


def test_an_interrupted_reading_goes_on_and_gives_the_same(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = asker.ask(store="whole")
    relations: Callable[..., list[Relation]] = Classifier.relations
    asked: list[int] = []

    def stopping(self: Classifier, pairs: Sequence[Pair]) -> list[Relation]:
        asked.append(len(pairs))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return relations(self, pairs)

    monkeypatch.setattr(Classifier, "relations", stopping)
    with pytest.raises(KeyboardInterrupt):
        asker.ask()
    done = sum(asked[:2])
    assert asker.ask() == wanted
    assert done > 0
    assert sum(asked[3:]) == len(PAIRS) - done
    assert len(asker.parts()) == 1


def test_a_batch_that_does_not_fit_is_halved(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = asker.ask(store="roomy")
    relations: Callable[..., list[Relation]] = Classifier.relations

    def small(self: Classifier, pairs: Sequence[Pair]) -> list[Relation]:
        if len(pairs) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return relations(self, pairs)

    monkeypatch.setattr(Classifier, "relations", small)
    assert asker.ask() == wanted


def test_a_pair_that_does_not_fit_alone_is_said(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Classifier, pairs: Sequence[Pair]) -> list[Relation]:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Classifier, "relations", full)
    with pytest.raises(RunError, match="alone does not fit in memory beside the model"):
        asker.ask()


def test_room_is_asked_for_before_the_weights_and_the_model_is_let_go_after(asker: Asker) -> None:
    with asker.open() as entailments:
        entailments(PAIRS)
        ((device, needed),) = asker.rooms
        classifier = entailments._classifier
        assert classifier is not None
        assert needed > sum(parameter.nbytes for parameter in classifier.model.parameters())
    assert device in ("cpu", "cuda")
    assert classifier.model is None


def test_pairs_longer_than_the_classifier_takes_are_cut_and_counted(
    classifiers: dict[str, Path], tmp_path: Path
) -> None:
    long = ("Which instrument does the baker play? " * 10, "oboe")
    asker = Asker(classifiers["roberta"], tmp_path)
    with asker.open() as entailments:
        assert entailments([long, PAIRS[0]]) == entailed_one_by_one(classifiers["roberta"], [long, PAIRS[0]])
        assert entailments.notes == ["1 of 2 pairs are longer than the entailment model takes and were cut"]
    assert asker.open().notes == entailments.notes


def test_another_reading_or_classifier_is_another_entry(
    asker: Asker, classifiers: dict[str, Path], tmp_path: Path
) -> None:
    asker.ask()
    asker.ask(asked_for="other answers")
    Asker(classifiers["roberta"], tmp_path).ask()
    assert len({part.parent for part in asker.parts()}) == 3


def test_the_label_is_found_by_its_name_and_its_absence_is_said(tmp_path: Path) -> None:
    turned = save_classifier(tmp_path / "turned", labels={0: "entailment", 1: "neutral", 2: "contradiction"})
    assert entailment_label(find_classifier(str(turned))) == 0
    moods = save_classifier(tmp_path / "moods", labels={0: "POSITIVE", 1: "NEGATIVE", 2: "not_entailment"})
    with pytest.raises(
        CheckpointError, match=r"no label 'entailment' \(labels: NEGATIVE, POSITIVE, not_entailment\)"
    ):
        find_classifier(str(moods))
    with pytest.raises(CheckpointError, match=r"probe\.entailment=.*nowhere is neither a folder"):
        find_classifier(str(tmp_path / "nowhere"))


def test_weights_that_are_missing_are_not_made_up(classifiers: dict[str, Path], tmp_path: Path) -> None:
    headless = Path(shutil.copytree(classifiers["deberta"], tmp_path / "headless"))
    weights = load_file(headless / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, headless / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 weights .* classifier\.weight"):
        Asker(headless, tmp_path).ask()


def test_a_classifier_may_have_a_sentencepiece_model_alone(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "classifier")
    with_sentencepiece_tokenizer(folder, [fact.statement(fact.answer) for fact in world.facts()])
    assert Asker(folder, tmp_path).ask() == entailed_one_by_one(folder, PAIRS)
