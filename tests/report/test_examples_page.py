"""A cell's page of examples: it holds what the tables hold, and nothing in the data can become more than text."""

from __future__ import annotations

import hashlib
import html
import json
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from probegrid.report.cells import RecordedCell
from probegrid.report.embedding import data_block
from probegrid.report.example_rows import MOST_CHARACTERS, CellTables, example_data
from probegrid.report.examples_page import examples_page
from probegrid.tracking.provenance import Provenance
from probegrid.tracking.record import CellRecord, Status

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028<!--&amp;"
RECORD = CellRecord(
    "key",
    "tiny-none-mine-gnll",
    Status.done,
    {"dataset": "mine", "probe": "gnll"},
    Provenance(None, None, "node", (), None, "probegrid", "2026-03-01T10:00:00+00:00", 1.0),
    metrics={"n": 2, "accuracy": 0.5, "auroc": float("nan")},
)


def made(answers: Sequence[str], **more: Sequence[Any]) -> CellTables:
    """A cell of so many answers, of which the first is right."""
    ids = [f"q{place}" for place in range(len(answers))]
    right = [place == 0 for place in range(len(answers))]
    score = [float("nan") if place == 1 else -0.123456 for place in range(len(answers))]
    scores = pa.table(
        {"example_id": ids, "group": ids, "split": ["test"] * len(ids), "label": right, "score": score}
    )
    columns = {
        "example_id": ids,
        "question": [f"shared words {one}?" for one in ids],
        "prompt": [f"Prompt with one beginning: {one}" for one in ids],
        "answer": list(answers),
        "references": [[f"reference of {one}"] for one in ids],
        "ended": ["stop"] * len(ids),
        "n_tokens": [2] * len(ids),
        "correct": right,
        "em": [float(one) for one in right],
        **more,
    }
    others = pa.table({"example_id": ids, "mean_nll": [0.5] * len(ids)})
    return CellTables(RECORD, {"scores": scores, "answers": pa.table(columns), "other_scores": others})


def data_of(page: str) -> dict[str, Any]:
    """The block of data as a browser reads it: to the first end of a script."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_a_row_has_everything_that_is_known_of_it() -> None:
    cell = made(
        ["a", "b"],
        token_texts=[["a", " "], ["b", "!"]],
        token_logprobs=[[-0.5, -1.0], [-2.0, -3.0]],
        judge_p=[0.9, None],
        thinking=["so it is", None],
    )
    samples = {
        "example_id": ["q0", "q0", "q1"],
        "answer": ["a", "z", "b"],
        "token_logprobs": [[-0.5, -0.5], [-2.0], [-1.0]],
        "cluster": [0, 1, 0],
    }
    data = example_data([replace(cell, tables={**cell.tables, "samples": pa.table(samples)})])
    first, second = data["rows"]
    assert data["prefix"] + first["prompt"] == "Prompt with one beginning: q0"
    assert first["references"] == ["reference of q0"]
    (at,) = first["at"]
    assert (at["answer"], at["correct"], at["ended"]) == ("a", True, "stop")
    assert at["scores"] == [-0.1235, 0.5]
    assert data["cells"][0]["scores"] == ["gnll", "mean_nll"]
    assert at["tokens"] == [["a", -0.5], [" ", -1.0]]
    assert at["samples"] == [["a", 0, -1.0], ["z", 1, -2.0]]
    assert at["marks"] == [["em", 1.0], ["judge p", 0.9]]  # columns that the page was not told of
    assert at["more"] == [["thinking", "so it is"]]
    assert second["at"][0]["scores"][0] is None
    assert "more" not in second["at"][0]


def test_what_the_data_says_is_text_and_nothing_else() -> None:
    page = examples_page(made([HOSTILE, "b"], question=[HOSTILE, "q"]))
    assert data_of(page)["rows"][0]["at"][0]["answer"] == HOSTILE
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg|http-equiv", "", page)
    assert json.loads(data_block(["\udc80", float("nan")])) == [
        "\udc80",
        None,
    ]  # a lone surrogate is an escape


def test_the_policy_lets_our_script_run_and_reach_nothing() -> None:
    page = examples_page(made(["a", "b"]))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert html.unescape(policy).split("; ")[:2] == ["default-src 'none'", f"script-src 'sha256-{digest}'"]


def test_long_texts_are_cut_and_it_is_said() -> None:
    (at,) = example_data([made(["a" * (MOST_CHARACTERS + 7), "b"])])["rows"][0]["at"]
    assert at["answer"].endswith("... (7 more characters)")


def test_two_cells_stand_side_by_side_on_the_examples_of_the_first() -> None:
    data = example_data([made(["a", "b", "c"]), made(["a", "x"])])
    answers = [[at and at["answer"] for at in row["at"]] for row in data["rows"]]
    assert answers == [["a", "a"], ["b", "x"], ["c", None]]
    assert len(data["cells"]) == 2
    other_file = made(["a", "x"], question=["q?", "another?"])
    rows = example_data([made(["a", "b"], question=["q?", "r?"]), other_file])["rows"]
    assert [row["at"][1] is None for row in rows] == [False, True]  # of one id, and not the same


@pytest.mark.slow
def test_statements_stand_in_their_conversations_with_a_score_a_layer(cells: Sequence[RecordedCell]) -> None:
    (cell,) = (one for one in cells if one.value("probe") == "logistic")
    data = data_of((cell.folder / "examples.html").read_text())
    assert data["kind"] == "statements"
    assert data["cells"][0]["layers"] == [2, 5]
    place = data["cells"][0]["layers"].index(data["cells"][0]["layer"])
    scores = cell.scores["score"]
    for row in data["rows"]:
        (at,) = row["at"]
        if row["split"] == "test":
            assert at["scores"][0] == pytest.approx(scores[row["id"]], rel=1e-3)
            assert (at["layers"][place] > 0) == (at["scores"][0] > 0)  # log-odds, of the same sign
        if "talk" in row:
            begin, end = row["span"]
            assert data["talks"][row["talk"]]["text"][begin:end] == row["question"]


@pytest.mark.slow
def test_the_tokens_of_an_answer_are_its_text_and_samples_have_clusters(
    cells: Sequence[RecordedCell],
) -> None:
    (cell,) = (one for one in cells if one.value("probe") == "semantic_entropy")
    data = data_of((cell.folder / "examples.html").read_text())
    for row in data["rows"]:
        (at,) = row["at"]
        if at["answer"]:
            assert at["answer"] in "".join(text for text, _ in at["tokens"])
        assert len(at["samples"]) == 4
        by_cluster: dict[int, set[str]] = {}
        for text, cluster, _ in at["samples"]:
            by_cluster.setdefault(cluster, set()).add(text.strip().lower())
        texts = [text for found in by_cluster.values() for text in found]
        assert len(texts) == len({*texts})  # one text is in one cluster
