"""Draws and the division of one table, over generated sets of questions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from probegrid.data.example import Question, QuestionSet
from probegrid.data.sampling import SHOT_LIMIT, question_set
from probegrid.data.table import Row, from_rows
from probegrid.schema import QuestionDatasetConfig
from probegrid.schema.ranges import LARGEST_SEED

CONFIG = QuestionDatasetConfig(path="unused", num_samples=10**6)


def parse(row: Row, row_id: str, where: str) -> Question:
    return Question(row_id, row["text"], row["references"], group=row["group"])


def rows(count: int, group_size: int = 1) -> list[dict[str, Any]]:
    return [
        {
            "text": f"question {n}",
            "references": ("yes",),
            "group": f"g{n // group_size}" if group_size > 1 else "",
        }
        for n in range(count)
    ]


def choose(*splits: list[dict[str, Any]], **fields: Any) -> QuestionSet:
    names = ("validation", "train")
    tables = [from_rows(name, split, name) for name, split in zip(names, splits, strict=False)]
    return question_set(replace(CONFIG, **fields), tables, parse, "squad")


generated_rows = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.sampled_from(["Who?", "who", "What is it?", "Why", "When?", "???", "¿Qué?"])
            | st.text(min_size=1),
            "references": st.sampled_from([(), ("yes",), ("yes", "no")]),
            "group": st.sampled_from(["", "", "a", "b", "c"]),
        }
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(generated_rows, st.integers(min_value=1, max_value=50), st.integers(0, LARGEST_SEED))
def test_any_table_divides_into_disjoint_sides(
    table: list[dict[str, Any]], num_samples: int, seed: int
) -> None:
    chosen = choose(table, num_samples=num_samples, seed=seed)
    every = choose(table)
    assert chosen.shots == every.shots
    assert 1 <= len(chosen.questions) <= num_samples
    assert {question.id for question in chosen.questions} <= {question.id for question in every.questions}
    for name in ("id", "text"):
        assert not {getattr(q, name) for q in every.questions} & {getattr(shot, name) for shot in every.shots}
    assert not {q.group for q in every.questions if q.group} & {shot.group for shot in every.shots}
    assert all(shot.references for shot in every.shots)


@settings(deadline=None)
@given(generated_rows, generated_rows, generated_rows)
def test_few_shot_examples_change_no_question(
    table: list[dict[str, Any]], shots: list[dict[str, Any]], others: list[dict[str, Any]]
) -> None:
    assert choose(table, shots, num_samples=5).questions == choose(table, others, num_samples=5).questions


def test_a_fifth_of_one_table_is_set_aside() -> None:
    chosen = choose(rows(100))
    assert (len(chosen.questions), len(chosen.shots)) == (80, 20)
    assert chosen.notes == (
        "asked for 1000000 questions, validation, beside 20 set aside for few-shot examples, has 80: "
        "all of them are used",
    )


def test_few_shot_examples_are_limited() -> None:
    assert len(choose(rows(6 * SHOT_LIMIT)).shots) == SHOT_LIMIT
    train = [row | {"text": f"train {n}"} for n, row in enumerate(rows(2 * SHOT_LIMIT))]
    two = choose(rows(10), train)
    assert len(two.shots) == SHOT_LIMIT
    assert len(two.questions) == 10


def test_groups_go_to_one_side_whole() -> None:
    chosen = choose(rows(100, group_size=10))
    assert len(chosen.shots) == 20
    assert len({question.group for question in chosen.questions}) == 8


def test_repeats_of_a_question_go_to_one_side() -> None:
    repeated = [row | {"text": f"question {n // 2}"} for n, row in enumerate(rows(100))]
    chosen = choose(repeated)
    assert (len(chosen.questions), len(chosen.shots)) == (80, 10)


def test_few_shot_examples_are_spread_over_their_split() -> None:
    places = [int(shot.id.removeprefix("train-")) for shot in choose(rows(1), rows(2 * SHOT_LIMIT)[1:]).shots]
    assert max(places) > 1.8 * SHOT_LIMIT
    assert places != sorted(places)


def test_a_single_question_is_asked_and_leaves_none_to_show() -> None:
    chosen = choose(rows(1))
    assert len(chosen.questions) == 1
    assert chosen.notes[0] == "validation leaves no question for few-shot examples"


def test_draws_are_spread_over_the_table() -> None:
    drawn = choose(rows(1000), rows(1), num_samples=200).questions
    places = [int(question.text.split()[1]) for question in drawn]
    assert places != sorted(places)
    assert 400 < sum(places) / len(places) < 600
