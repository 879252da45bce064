"""What statements are about, and what joins them, on invented statements and on real ones."""

from __future__ import annotations

import csv
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from probegrid.evaluation.links import Links
from probegrid.evaluation.splits import TEST, TRAIN, UNUSED, VALIDATION, divide
from probegrid.evaluation.subjects import normalized, subject_keys

TOWNS = [
    f"{start}{end}"
    for start, end in product(("Bar", "Dol", "Kes", "Lum", "Mor", "Tav"), ("ona", "ik", "ensk", "o"))
]
LANDS = [f"{start}ia" for start in ("Frel", "Gond", "Harl", "Ister", "Nov")]


def towns(*, negated: bool = False) -> tuple[list[str], list[bool]]:
    """Each town once in its own land and once in another; ``negated``: the same, denied, with labels turned."""
    texts, labels = [], []
    for number, town in enumerate(TOWNS):
        for land, is_true in ((LANDS[number % 5], True), (LANDS[(number + 2) % 5], False)):
            texts.append(f"The town of {town} is {'not ' if negated else ''}in {land}.")
            labels.append(is_true is not negated)
    return texts, labels


def components(texts: list[str], *, groups: list[str] | None = None) -> list[int]:
    rows = [str(row) for row in range(len(texts))]
    links = Links.of(rows, texts, [""] * len(rows), groups or [""] * len(rows), by_subject=True)
    return links.components().tolist()


def test_texts_are_compared_without_case_space_final_marks_and_form() -> None:
    forms = ("Café is open.", " cafe\u0301  is open", "CAFÉ IS OPEN!!")
    assert {normalized(form) for form in forms} == {"café is open"}
    assert normalized("Is it 3.5?") == "is it 3.5"


def test_a_town_is_what_statements_on_it_share_and_a_land_is_not() -> None:
    texts, _ = towns()
    found = components(texts)
    assert len(set(found)) == len(TOWNS)
    assert all(found[row] == found[row + 1] for row in range(0, len(found), 2))
    both = components(texts + towns(negated=True)[0])
    assert len(set(both)) == len(TOWNS)
    assert both[: len(found)] == both[len(found) :]


def test_a_negation_and_a_copy_but_for_one_word_of_many_belong_together() -> None:
    texts = [
        "The moon pulls the seas.",
        "The moon does not pull the seas.",
        "The moon doesn't pull the seas.",
        "Glaciers on the northern coast have lost half their mass since records began in the last century.",
        "Glaciers on the northern coast have lost half their mass since records started in the last century.",
        "Granite is an igneous rock.",
        "Basalt is an igneous rock.",
    ]
    found = components(texts)
    assert found[0] == found[1] == found[2]
    assert found[3] == found[4]
    assert len({found[0], found[3], found[5], found[6]}) == 4


def test_groups_of_the_data_join() -> None:
    texts = [f"Fact {name} stands alone." for name in "abcdef"]
    assert len(set(components(texts))) == 6
    found = components(texts, groups=["x", "", "x", "", "y", "y"])
    assert (found[0] == found[2], found[4] == found[5], found[1] == found[3]) == (True, True, False)


def test_no_town_is_on_two_sides_and_words_are_at_chance() -> None:
    texts, labels = towns()
    more, denied = towns(negated=True)
    texts, labels = texts + more, labels + denied
    rows = [str(row) for row in range(len(texts))]
    division = divide("leakfree", labels, rows, texts, ["a"] * 48 + ["b"] * 48, seed=0)
    parts = division.folds[0].parts
    of_town = {
        town: {part for text, part in zip(texts, parts, strict=True) if f" {town} " in text} for town in TOWNS
    }
    assert all(len(held) == 1 for held in of_town.values())
    assert division.notes == ()
    leaky = divide("random", labels, rows, texts, ["a"] * 48 + ["b"] * 48, seed=0)
    (note,) = (note for note in leaky.notes if "are about what a training example is about" in note)
    assert note.startswith("leaky: ")


def test_what_would_join_everything_is_given_up_and_said() -> None:
    """Every pair of 45 numbers: each number is in many statements, so that its statements hold all together."""
    texts, labels = [], []
    for first, second in product(range(11, 56), repeat=2):
        if first != second:
            texts.append(f"Number {first} is larger than number {second}.")
            labels.append(first > second)
    rows = [str(row) for row in range(len(texts))]
    division = divide("leakfree", labels, rows, texts, [""] * len(rows), seed=0)
    assert any("joins too many of them to be divided" in note for note in division.notes)
    assert not [note for note in division.notes if note.startswith("leaky")]
    part_of = {frozenset(text.split()[word].strip(".") for word in (1, 6)): set() for text in texts}
    for text, part in zip(texts, division.folds[0].parts, strict=True):
        part_of[frozenset(text.split()[word].strip(".") for word in (1, 6))].add(part)
    assert all(len(parts) == 1 for parts in part_of.values()), "a pair and its reverse are on one side"


def test_one_component_is_pruned_and_the_rest_is_said() -> None:
    """Conversations that share a text with the next in a ring: all are one, and test loses what recurs."""
    generator = np.random.default_rng(0)
    rows = [
        (bool(text % 2), f"c{talk}", f"text number {text} of all")
        for talk in range(100)
        for text in generator.choice(400, 6, replace=False)
    ]
    labels, talks, texts = map(list, zip(*rows, strict=True))
    division = divide("leakfree", labels, talks, texts, [""] * len(rows), seed=0)
    parts = division.folds[0].parts
    assert any("what recurs is left out" in note for note in division.notes)
    held = {
        part: {text for text, of in zip(texts, parts, strict=True) if of == part}
        for part in (TRAIN, VALIDATION, TEST)
    }
    assert not held[TEST] & (held[TRAIN] | held[VALIDATION])
    assert not held[VALIDATION] & held[TRAIN]
    assert (parts == UNUSED).any()
    assert len(set(division.groups)) == 100


def test_every_fold_tests_another_part() -> None:
    texts, labels = towns()
    rows = [str(row) for row in range(len(texts))]
    division = divide("leakfree", labels, rows, texts, [""] * len(rows), seed=0, folds=4)
    tested = np.stack([fold.parts == TEST for fold in division.folds])
    assert (tested.sum(axis=0) == 1).all()
    for fold in division.folds:
        assert (fold.parts == TRAIN).sum() > 2 * (fold.parts == VALIDATION).sum()


@pytest.mark.skipif("PROBEGRID_DATA" not in os.environ, reason="PROBEGRID_DATA is not set")
def test_words_are_at_chance_on_cities_and_far_below_it_on_random_rows() -> None:
    with (Path(os.environ["PROBEGRID_DATA"]) / "statements/cities.csv").open() as file:
        rows = [*csv.DictReader(file)]
    texts, labels = [row["statement"] for row in rows], np.array([row["label"] == "1" for row in rows])
    areas = {}
    for method in ("leakfree", "random"):
        ids = [str(row) for row in range(len(rows))]
        parts = divide(method, labels, ids, texts, ["cities"] * len(rows), seed=0).folds[0].parts
        seen, tested = np.isin(parts, (TRAIN, VALIDATION)), parts == TEST
        model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10, max_iter=1000))
        model.fit(np.array(texts)[seen], labels[seen])
        areas[method] = roc_auc_score(labels[tested], model.decision_function(np.array(texts)[tested]))
    assert abs(areas["leakfree"] - 0.5) < 0.08
    assert areas["random"] < 0.15
    assert len({*map(frozenset, map(tuple, map(sorted, subject_keys(texts[:10], [""] * 10))))}) == 10
