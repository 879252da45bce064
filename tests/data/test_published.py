# ruff: noqa: E501  # the fixtures are a table, a file a line
"""Published sets: every one in its publisher's format and in the hub's, by fixtures, and on the real extracts."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probegrid.compose import compose_cell
from probegrid.data import load
from probegrid.data.example import Question, QuestionSet, StatementSet
from probegrid.data.layouts import LAYOUTS
from probegrid.data.options import LETTERS, Options, right_option
from probegrid.data.published import PublishedConfig
from probegrid.errors import ConfigError, DataError
from probegrid.evaluation.rules import find_rule
from probegrid.schema import CellSpec

DATA = Path(os.environ.get("PROBEGRID_DATA", ""))
real = pytest.mark.skipif("PROBEGRID_DATA" not in os.environ, reason="PROBEGRID_DATA is not set")
N = range(16)


def lines(make: Callable[[int], dict[str, Any]]) -> str:
    return "".join(json.dumps(make(n)) + "\n" for n in N)


def table(make: Callable[[int], dict[str, Any]], delimiter: str = ",", header: bool = True) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(make(0)), delimiter=delimiter)
    if header:
        writer.writeheader()
    writer.writerows(map(make, N))
    return file.getvalue()


def options(n: int) -> list[str]:
    return [f"one {n}", f"two {n}", f"three {n}", f"four {n}"]


def labelled(n: int, labels: str = "ABCD") -> list[dict[str, str]]:
    return [{"text": text, "label": label} for text, label in zip(options(n), labels, strict=True)]


def turns(n: int) -> list[dict[str, Any]]:
    return [{"input_text": f"What came {n}.{turn}?", "turn_id": turn + 1} for turn in range(2)]


def replies(n: int, word: str = "Thing") -> list[dict[str, Any]]:
    return [{"input_text": f"{word} {n}.{turn}", "span_start": 0} for turn in range(2)]


def quac(n: int) -> dict[str, Any]:
    qas = [
        {"id": f"C_{n}_q#{turn}", "question": f"What of {n}.{turn}?", "followup": "y", "yesno": "x", "answers": [{"text": said, "answer_start": 0}]}
        for turn, said in enumerate([f"This {n}", "CANNOTANSWER"])
    ]  # fmt: skip
    return {
        "title": f"t{n}",
        "paragraphs": [{"id": f"C_{n}", "context": f"This {n} it was. CANNOTANSWER", "qas": qas}],
    }


FILES: list[tuple[str, str, str, tuple[str, ...], str]] = [
    ("nq_open", "NQ-open.dev.jsonl", lines(lambda n: {"question": f"who is {n}", "answer": [f"Ann {n}", f"A. {n}"]}), ("Ann 3", "A. 3"), "who is 3?"),
    ("nq_open", "mine.csv", table(lambda n: {"question": f"who is {n}", "answer": str([f"Ann {n}"])}), ("Ann 3",), "who is 3?"),
    ("popqa", "popQA.tsv", table(lambda n: {"id": n, "subj": f"S{n}", "subj_id": n, "prop": "father", "question": f"Who is the father of {n}?", "possible_answers": json.dumps([f"Bo {n}", f"B {n}"])}, "\t"), ("Bo 3", "B 3"), "Who is the father of 3?"),
    ("popqa", "test.jsonl", lines(lambda n: {"id": f"test_{n}", "question": f"Who is {n}?", "golden_answers": [f"Bo {n}"], "metadata": {"subj_id": n}}), ("Bo 3",), "Who is 3?"),
    ("web_questions", "val.json", json.dumps([{"qId": f"wqr{n}", "qText": f"what is {n}?", "answers": [f"X {n}", "http://x.y"]} for n in N]), ("X 3",), "what is 3?"),
    ("web_questions", "hub.jsonl", lines(lambda n: {"url": f"http://u/{n}", "question": f"what is {n}", "answers": [f"X {n}"]}), ("X 3",), "what is 3?"),
    ("simpleqa", "simple_qa_test_set.csv", table(lambda n: {"metadata": "{'topic': 'x', 'urls': ['a', 'b']}", "problem": f"Which\nyear {n}?", "answer": f" 19{n:02} "}), ("1903",), "Which\nyear 3?"),
    ("hotpotqa", "hotpot_dev.json", json.dumps([{"_id": f"h{n}", "question": f"Was it {n}?", "answer": "yes", "context": [["T", ["A. ", f"B{n}."]]]} for n in N]), ("yes",), "Was it 3?"),
    ("hotpotqa", "hub.jsonl", lines(lambda n: {"id": f"h{n}", "question": f"Was it {n}?", "answer": f"Z {n}", "context": {"title": ["T"], "sentences": [["A. ", f"B{n}."]]}}), ("Z 3",), "Was it 3?"),
    ("halueval", "qa_data.json", lines(lambda n: {"knowledge": f"K {n}.", "question": f"What {n}?", "right_answer": f"R {n}", "hallucinated_answer": "no"}), ("R 3",), "What 3?"),
    ("svamp", "SVAMP.json", json.dumps([{"ID": f"chal-{n}", "Body": f"There are {n} birds", "Question": "How many?", "Answer": float(n), "Type": "x"} for n in N]), ("3",), "There are 3 birds. How many?"),
    ("svamp", "hub.jsonl", lines(lambda n: {"ID": f"chal-{n}", "Body": f"There are {n} birds.", "Question": "How many?", "Answer": f"{n}.0"}), ("3",), "There are 3 birds. How many?"),
    ("gsm8k", "test.jsonl", lines(lambda n: {"question": f"How many {n}?", "answer": f"It is <<{n}+1000={n + 1000}>>{n + 1000}.\n#### 1,{n:03}"}), ("1003",), "How many 3?"),
    ("mmlu", "astronomy_test.csv", table(lambda n: {"q": f"Which {n}?", **dict(zip("ABCD", options(n), strict=True)), "a": "B"}, header=False), ("B", "two 3"), "Which 3?"),
    ("mmlu", "header.csv", table(lambda n: {"question": f"Which {n}?", **{f"choice{k}": text for k, text in enumerate(options(n))}, "answer": 3}), ("D", "four 3"), "Which 3?"),
    ("mmlu", "letters.csv", table(lambda n: {"question": f"Which {n}?", **dict(zip("ABCD", options(n), strict=True)), "answer": 0}), ("A", "one 3"), "Which 3?"),
    ("mmlu", "hub.jsonl", lines(lambda n: {"question": f"Which {n}?", "subject": "x", "choices": options(n), "answer": 2}), ("C", "three 3"), "Which 3?"),
    ("arc", "ARC-Challenge-Test.jsonl", lines(lambda n: {"id": f"arc{n}", "question": {"stem": f"Which {n}?", "choices": labelled(n, "1234")}, "answerKey": "2"}), ("B", "two 3"), "Which 3?"),
    ("arc", "hub.jsonl", lines(lambda n: {"id": f"arc{n}", "question": f"Which {n}?", "choices": {"text": options(n), "label": list("ABCD")}, "answerKey": "D"}), ("D", "four 3"), "Which 3?"),
    ("commonsense_qa", "dev_rand_split.jsonl", lines(lambda n: {"id": f"c{n}", "answerKey": "C", "question": {"question_concept": "x", "stem": f"Which {n}?", "choices": labelled(n)}}), ("C", "three 3"), "Which 3?"),
    ("medqa", "test.jsonl", lines(lambda n: {"question": f"Which {n}?", "answer": f"two {n}", "options": dict(zip("ABCD", options(n), strict=True)), "answer_idx": "B"}), ("B", "two 3"), "Which 3?"),
    ("medqa", "hub.jsonl", lines(lambda n: {"id": n, "sent1": f"Which {n}?", **{f"ending{k}": text for k, text in enumerate(options(n))}, "label": 3}), ("D", "four 3"), "Which 3?"),
    ("sciq", "hub.jsonl", lines(lambda n: {"question": f"Which {n}?", "distractor1": f"w1 {n}", "distractor2": f"w2 {n}", "distractor3": f"w3 {n}", "correct_answer": f"right {n}", "support": ""}), ("*", "right 3"), "Which 3?"),
    ("truthful_qa", "mc_task.json", json.dumps([{"question": f"Which {n}?", "mc1_targets": {f"right {n}": 1, f"w1 {n}": 0, f"w2 {n}": 0}, "mc2_targets": {f"right {n}": 1, f"also {n}": 1, f"w1 {n}": 0, f"w2 {n}": 0}} for n in N]), ("*", "right 3"), "Which 3?"),
    ("truthful_qa", "hub.jsonl", lines(lambda n: {"question": f"Which {n}?", "mc1_targets": {"choices": [f"right {n}", f"w1 {n}"], "labels": [1, 0]}, "mc2_targets": {}}), ("*", "right 3"), "Which 3?"),
    ("truthful_qa", "TruthfulQA.csv", "\ufeff" + table(lambda n: {"Type": "x", "Question": f"Which {n}?", "Best Answer": f"right {n}", "Correct Answers": f"right {n}; also {n}", "Incorrect Answers": f"w1 {n}; w2 {n}"}), ("*", "right 3"), "Which 3?"),
    ("truthful_qa_generation", "TruthfulQA.csv", "\ufeff" + table(lambda n: {"Question": f"Which {n}?", "Best Answer": f"right {n}", "Correct Answers": f"right {n}; also {n}", "Incorrect Answers": f"w1 {n}"}), ("right 3", "also 3"), "Which 3?"),
    ("truthful_qa_generation", "hub.jsonl", lines(lambda n: {"question": f"Which {n}?", "best_answer": f"right {n}", "correct_answers": [f"also {n}"], "incorrect_answers": ["w"]}), ("right 3", "also 3"), "Which 3?"),
    ("bioasq", "training12b.json", json.dumps({"questions": [{"id": f"b{n}", "body": f"Which gene {n}?", "type": "factoid", "exact_answer": [[f"HTT {n}", f"huntingtin {n}"]], "snippets": [{"text": f"S {n}"}]} for n in N]}), ("HTT 3", "huntingtin 3"), "Which gene 3?"),
    ("coqa", "coqa-dev-v1.0.json", json.dumps({"version": "1", "data": [{"id": f"d{n}", "source": "x", "story": f"Story {n}.", "questions": turns(n), "answers": replies(n), "additional_answers": {"0": replies(n, "It")}} for n in N]}), ("Thing 3.1", "It 3.1"), "What came 3.1?"),
    ("coqa", "hub.jsonl", lines(lambda n: {"source": "x", "story": f"Story {n}.", "questions": [f"What came {n}.{turn}?" for turn in range(2)], "answers": {"input_text": [f"Thing {n}.{turn}" for turn in range(2)], "answer_start": [0, 0]}}), ("Thing 3.1",), "What came 3.1?"),
    ("quac", "quac_sample.json", json.dumps({"data": list(map(quac, N))}), ("This 3",), "What of 3.0?"),
]  # fmt: skip
"""Layout, name of the file, content, references of one of its questions, that question."""


def everything(loaded: object) -> list[Question]:
    assert isinstance(loaded, QuestionSet)
    return [*loaded.questions, *loaded.shots]


@pytest.mark.parametrize(
    ("layout", "name", "text", "references", "asked"), FILES, ids=[f"{one[0]}-{one[1]}" for one in FILES]
)
def test_contract_and_content(
    check_dataset: Any,
    tmp_path: Path,
    layout: str,
    name: str,
    text: str,
    references: tuple[str, ...],
    asked: str,
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    config = PublishedConfig(layout=layout, path=str(tmp_path / name), num_samples=10)
    check_dataset(config)
    found = everything(load(PublishedConfig(layout=layout, path=str(tmp_path / name))))
    (question,) = [one for one in found if one.text == asked]
    if references[0] == "*":  # the order is drawn
        assert question.references[1:] == references[1:]
        assert question.options["ABCDE".index(question.references[0])] == references[1]
    else:
        assert question.references == references
    if question.options and references[0] != "*":
        assert question.options["ABCDE".index(question.references[0])] == references[1]
    rule = find_rule(LAYOUTS[layout].rule)
    assert all(rule.judge(reference, question.references).correct for reference in question.references)


@pytest.mark.slow
def test_every_layout_has_a_fixture_and_a_choice() -> None:
    assert {one[0] for one in FILES} == LAYOUTS.keys()
    for layout in LAYOUTS:
        spec = compose_cell([f"dataset={layout}", "dataset.path=x.jsonl"])
        assert isinstance(spec.config.dataset, PublishedConfig)
        assert spec.config.dataset.layout == layout


def test_the_right_option_does_not_stand_in_one_place(tmp_path: Path) -> None:
    for layout, name, text, *_ in FILES:
        if layout in ("truthful_qa", "sciq"):
            (tmp_path / name).write_text(text, encoding="utf-8")
            found = everything(load(PublishedConfig(layout=layout, path=str(tmp_path / name))))
            assert len({one.references[0] for one in found}) > 1, layout


def test_truthful_qa_keeps_the_other_true_answers_beside_its_options(tmp_path: Path) -> None:
    for layout, name, text, *_ in FILES:
        if layout == "truthful_qa" and name != "hub.jsonl":
            (tmp_path / name).write_text(text, encoding="utf-8")
            found = everything(load(PublishedConfig(layout=layout, path=str(tmp_path / name))))
            (one,) = [one for one in found if one.text == "Which 3?"]
            assert one.more_options == (("also 3", True),)
            assert sorted(one.options) == ["right 3", "w1 3", "w2 3"]


def test_sciq_can_be_asked_without_options(tmp_path: Path) -> None:
    text = next(one[2] for one in FILES if one[0] == "sciq")
    (tmp_path / "a.jsonl").write_text(text)
    loaded = load(PublishedConfig(layout="sciq", path=str(tmp_path / "a.jsonl"), show_options=False))
    assert isinstance(loaded, QuestionSet)
    assert loaded.rule == "exact"
    assert not loaded.questions[0].options


def test_a_dialog_stays_together_and_shows_what_came_before(tmp_path: Path) -> None:
    text = next(one[2] for one in FILES if one[1] == "coqa-dev-v1.0.json")
    (tmp_path / "coqa.json").write_text(text)
    found = everything(load(PublishedConfig(layout="coqa", path=str(tmp_path / "coqa.json"))))
    second = next(one for one in found if one.text == "What came 5.1?")
    assert second.history == (("What came 5.0?", "Thing 5.0"),)
    assert second.context == "Story 5."
    assert {one.group for one in found if " 5." in one.text} == {second.group}


def test_what_cannot_be_answered_is_no_answer(tmp_path: Path) -> None:
    text = next(one[2] for one in FILES if one[0] == "quac")
    (tmp_path / "quac.json").write_text(text)
    found = everything(load(PublishedConfig(layout="quac", path=str(tmp_path / "quac.json"))))
    assert not any("CANNOTANSWER" in f"{one.context}{one.references}{one.history}" for one in found)
    assert any(not one.references for one in found)


def test_gsm8k_shows_its_reasoning_without_marks(tmp_path: Path) -> None:
    text = next(one[2] for one in FILES if one[0] == "gsm8k")
    (tmp_path / "test.jsonl").write_text(text)
    found = everything(load(PublishedConfig(layout="gsm8k", path=str(tmp_path / "test.jsonl"))))
    assert next(one for one in found if one.text == "How many 3?").solution == "It is 1003."


def test_bioasq_leaves_lists_and_summaries_out_and_says_so(tmp_path: Path) -> None:
    questions = [
        {"id": f"{kind}{n}", "body": f"{kind} {n}?", "type": kind, "exact_answer": answer}
        for n in range(3)
        for kind, answer in (
            ("factoid", [["a", "b"]]),
            ("yesno", "yes"),
            ("list", [["a"], ["b"]]),
            ("summary", None),
        )
    ]
    (tmp_path / "b.json").write_text(json.dumps({"questions": questions}))
    loaded = load(PublishedConfig(layout="bioasq", path=str(tmp_path / "b.json")))
    assert {one.text.split()[0] for one in everything(loaded)} == {"factoid", "yesno"}
    assert loaded.notes[0] == "6 rows are left out: they ask for lists or summaries"


def test_mmlu_shows_the_first_of_its_dev_split_in_order(tmp_path: Path) -> None:
    for split, count in (("dev", 5), ("val", 3), ("test", 8)):
        (tmp_path / split).mkdir()
        for subject in ("astronomy", "anatomy"):
            rows = "".join(f"{split} {subject} {n},a,b,c,d,A\n" for n in range(count))
            (tmp_path / f"{split}/{subject}_{split}.csv").write_text(rows)
    spec = compose_cell(["dataset=mmlu", f"dataset.path={tmp_path}", "dataset.subset=astronomy"])
    loaded = load(spec.config.dataset)
    assert isinstance(loaded, QuestionSet)
    assert [shot.text for shot in loaded.shots] == [f"dev astronomy {n}" for n in range(5)]
    assert loaded.shots_in_order
    assert len(loaded.questions) == 8
    with pytest.raises(DataError, match=r"no subject 'astronomi'; did you mean 'astronomy'"):
        load(
            compose_cell(
                ["dataset=mmlu", f"dataset.path={tmp_path}", "dataset.subset=astronomi"]
            ).config.dataset
        )


@pytest.mark.parametrize(
    ("layout", "row", "message"),
    [
        ("commonsense_qa", {"id": "a", "question": {"stem": "Q?", "choices": labelled(1)}}, "answers of this split are withheld"),
        ("commonsense_qa", {"id": "a", "question": "Q?", "choices": labelled(1), "answerKey": ""}, "are withheld"),
        ("gsm8k", {"question": "Q?", "answer": "It is 4."}, r"does not end in '#### <number>'"),
        ("nq_open", {"question": "Q?", "reply": "x"}, r"has none of answer, golden_answers; it has: question, reply"),
        ("mmlu", {"question": "Q?", "answer": "B"}, r"has no options"),
        ("hotpotqa", {"question": "Q?", "answer": "x", "context": [["T"]]}, r"row 1 of .* is not laid out as the publisher's"),
        ("medqa", {"sent1": "Q?", "ending0": "x", "ending1": "y", "label": 0.5}, r"is 0\.5, and there are 2 endings"),
        ("arc", {"question": "Q?", "choices": labelled(1), "answerKey": "E"}, r"'E', which names none of the 4 options"),
        ("truthful_qa", {"question": "Q?", "mc1_targets": {"a": 1, "b": 1}}, r"mark 2 options as right"),
        ("truthful_qa", {"question": "Q?", "mc1_targets": {"a": 1, "b": 0}, "mc2_targets": {"a": 1, "b": 1}}, r"do not agree on whether 'b' is true"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_refused(
    tmp_path: Path, layout: str, row: dict[str, Any], message: str
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=message):
        load(PublishedConfig(layout=layout, path=str(tmp_path / "a.jsonl")))


def test_a_release_of_no_objects_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"questions": [null]}')
    with pytest.raises(DataError, match=r"not laid out as the official release: a row is no object"):
        load(PublishedConfig(layout="bioasq", path=str(tmp_path / "a.json")))


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dataset\.layout=gsm is not known; did you mean 'gsm8k'"):
        PublishedConfig(layout="gsm")


@given(st.integers(2, 5), st.data())
def test_an_option_is_named_by_letter_label_place_or_text(count: int, data: st.DataObject) -> None:
    texts = tuple(f"option {n}" for n in range(count))
    right = data.draw(st.integers(0, count - 1))
    assert right_option(Options(texts), "ABCDE"[right], "x") == right
    assert right_option(Options(texts), texts[right], "x") == right
    assert right_option(Options(texts, labels=tuple("12345"[:count])), str(right + 1), "x") == right
    assert (
        right_option(Options(texts), right, "x", first=0)
        == right_option(Options(texts), right + 1, "x", first=1)
        == right
    )


def test_a_place_that_can_be_read_in_two_ways_is_refused() -> None:
    with pytest.raises(DataError, match=r"dataset\.first_option=0 or dataset\.first_option=1"):
        right_option(Options(("a", "b", "c")), 1, "the answer")
    assert right_option(Options(("a", "b", "c")), 0, "the answer") == 0
    with pytest.raises(DataError, match="could be read in several ways"):
        right_option(Options(("1", "2", "3")), "2", "the answer")


REAL = {
    "nq_open/NQ-open.dev.jsonl": ("nq_open", 150),
    "nq_open/NQ-open.efficientqa.dev.1.1.jsonl": ("nq_open", 30),
    "popqa/popQA.tsv": ("popqa", 150),
    "popqa/flashrag_test.jsonl": ("popqa", 20),
    "simpleqa/simple_qa_test_set.csv": ("simpleqa", 100),
    "webquestions/main_val.json": ("web_questions", 119),
    "hotpotqa/hotpot_dev_v1_simplified.json": ("hotpotqa", 150),
    "halueval/qa_one-turn_data.json": ("halueval", 100),
    "truthfulqa/TruthfulQA.csv": ("truthful_qa", 100),
    "truthfulqa/mc_task.json": ("truthful_qa", 60),
    "svamp/SVAMP.json": ("svamp", 120),
    "gsm8k/test.jsonl": ("gsm8k", 120),
    "gsm8k/train.jsonl": ("gsm8k", 20),
    "mmlu/test/astronomy_test.csv": ("mmlu", 70),
    "mmlu/test/college_mathematics_test.csv": ("mmlu", 50),
    "mmlu/with_header/astronomy_test.csv": ("mmlu", 20),
    "mmlu/with_header/business_ethics_test.csv": ("mmlu", 20),
    "arc/ARC-Challenge-Test.jsonl": ("arc", 100),
    "arc/hub_test.jsonl": ("arc", 40),
    "commonsenseqa/dev_rand_split.jsonl": ("commonsense_qa", 100),
    "medqa/test.jsonl": ("medqa", 50),
    "quac/quac_sample.json": ("quac", 6),
}


@real
@pytest.mark.parametrize("name", REAL)
def test_real_extracts(check_dataset: Any, name: str) -> None:
    layout, count = REAL[name]
    config = PublishedConfig(layout=layout, path=str(DATA / "sets" / name), num_samples=10)
    if layout != "quac":  # of one section: nothing can be set aside
        check_dataset(config)
    found = everything(load(PublishedConfig(layout=layout, path=config.path)))
    assert len(found) == count
    for question in found:
        assert not question.options or question.options[LETTERS.index(question.references[0])]
        if layout in ("svamp", "gsm8k"):
            assert re.fullmatch(r"-?\d+(\.\d+)?", question.references[0])
            assert not question.references[0].endswith(".0")


@real
def test_answers_of_real_arc_and_medqa_are_those_of_their_own_keys() -> None:
    for name in ("arc/ARC-Challenge-Test.jsonl", "commonsenseqa/dev_rand_split.jsonl"):
        rows = [json.loads(line) for line in (DATA / "sets" / name).read_text().splitlines()]
        wanted = {
            row["id"]: next(
                one["text"] for one in row["question"]["choices"] if one["label"] == row["answerKey"]
            )
            for row in rows
        }
        for one in everything(load(PublishedConfig(layout=REAL[name][0], path=str(DATA / "sets" / name)))):
            assert one.options["ABCDE".index(one.references[0])] == wanted[one.id]
    rows = [json.loads(line) for line in (DATA / "sets/medqa/test.jsonl").read_text().splitlines()]
    found = everything(load(PublishedConfig(layout="medqa", path=str(DATA / "sets/medqa/test.jsonl"))))
    assert {one.text: one.references[1] for one in found} == {row["question"]: row["answer"] for row in rows}


STATEMENTS = {
    "truth_is_universal": (
        ["dataset.topics=[cities_de,facts_de,neg_facts_de,facts_conj,neg_facts,facts]"],
        569,
    ),
    "common_claim": ([], 138),
    "counterfact": ([], 150),
    "true_false": ([], 460),
}
PLACES = {
    "truth_is_universal": "",
    "common_claim": "common_claim.csv",
    "counterfact": "counterfact_true_false.csv",
    "true_false": "saplma",
}


@real
@pytest.mark.parametrize("name", STATEMENTS)
def test_real_statements(check_dataset: Any, name: str) -> None:
    more, count = STATEMENTS[name]
    spec: CellSpec = compose_cell(
        [
            f"dataset={name}",
            f"dataset.path={DATA}/sets/statements/{PLACES[name]}",
            "dataset.num_samples=20",
            "probe=text_baseline",
            *more,
        ]
    )
    check_dataset(spec.config.dataset)
    spec = compose_cell(
        [
            f"dataset={name}",
            f"dataset.path={DATA}/sets/statements/{PLACES[name]}",
            "dataset.num_samples=9999",
            "probe=text_baseline",
            *more,
        ]
    )
    loaded = load(spec.config.dataset)
    assert isinstance(loaded, StatementSet)
    assert len(loaded.conversations) == count
    if name == "truth_is_universal":
        groups = [one.group for one in loaded.conversations if one.statements[0].source == "neg_facts"]
        assert len(set(groups)) == 150
        assert all(group.startswith("facts/") for group in groups)
        assert any("neg_facts_de is not facts_de negated row by row" in note for note in loaded.notes)
