"""Paired comparisons of real cells: which are paired, and every number against pandas, scipy and a plain loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from recorder import Recorder
from scipy.stats import rankdata
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from probegrid.errors import ConfigError
from probegrid.evaluation.agreement import agreement
from probegrid.evaluation.paired import holm
from probegrid.report.behind import pairs_behind
from probegrid.report.cells import RecordedCell
from probegrid.report.comparison_table import comparisons_table
from probegrid.report.comparisons import SAME_ANSWERS, SAME_SCORES, Comparison, compare_cells
from probegrid.report.pairing import find_pairs
from probegrid.report.rules_table import rules_table
from probegrid.report.score_table import MOST_IN_MATRIX, compared_scores_table

pytestmark = pytest.mark.slow  # cells of real models, or composed one by one


def only(found: Sequence[Comparison]) -> Comparison:
    (one,) = found
    return one


def joined(first: RecordedCell, second: RecordedCell) -> pd.DataFrame:
    """The test examples that both cells have, read from their files."""
    tables = []
    for cell, suffix in ((first, "_1"), (second, "_2")):
        table = pd.read_parquet(cell.folder / "scores.parquet").query("split == 'test'")
        tables.append(table.set_index("example_id").add_suffix(suffix))
    return tables[0].join(tables[1], how="inner")


def mann_whitney(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """The AUROC by scipy's ranks: what sklearn's says, in a tenth of the time."""
    positives = int(labels.sum())
    wins = rankdata(scores)[labels].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * (len(labels) - positives)))


def test_quantizations_are_compared_on_the_same_examples(cells: Sequence[RecordedCell]) -> None:
    found = compare_cells(cells, "quantization", seed=0, resamples=400)
    one = only(found.made)
    assert (one.pair.first_name, one.pair.second_name) == ("nf4", "none")
    assert one.pair.second is cells[0]
    assert {unpaired.cells[0].record.cell for unpaired in found.not_made} == {
        c.record.cell for c in cells[2:]
    }
    table = joined(one.pair.first, one.pair.second)
    assert one.n == len(table) == 60
    assert one.accuracy.difference is not None
    assert one.auroc.difference is not None
    assert one.accuracy.difference.value == pytest.approx(table["label_1"].mean() - table["label_2"].mean())
    areas = [roc_auc_score(table[f"label_{side}"], table[f"score_{side}"]) for side in (1, 2)]
    assert areas == pytest.approx(
        [
            mann_whitney(table[f"label_{side}"].to_numpy(bool), table[f"score_{side}"].to_numpy())
            for side in (1, 2)
        ]
    )
    assert one.auroc.difference.value == pytest.approx(areas[0] - areas[1])

    drawn, generator = [], np.random.default_rng(3)
    sides = [(table[f"label_{side}"].to_numpy(bool), table[f"score_{side}"].to_numpy()) for side in (1, 2)]
    for _ in range(2000):
        rows = generator.integers(len(table), size=len(table))
        if all(len(set(labels[rows])) == 2 for labels, _ in sides):
            each = [mann_whitney(labels[rows], scores[rows]) for labels, scores in sides]
            drawn.append(each[0] - each[1])
    ends = (one.auroc.difference.low, one.auroc.difference.high)
    assert ends == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)


def test_agreement_is_that_of_the_answers(cells: Sequence[RecordedCell]) -> None:
    one = only(compare_cells(cells[:2], "quantization", seed=0, resamples=50).made)
    first, second = (
        pd.read_parquet(cell.folder / "answers.parquet") for cell in (one.pair.first, one.pair.second)
    )
    both = first.merge(second, on="example_id")
    assert one.answers is not None
    assert one.answers.same_verdict == (both["correct_x"] == both["correct_y"]).mean()
    assert one.answers.kappa == pytest.approx(cohen_kappa_score(both["correct_x"], both["correct_y"]))
    same = both["answer_x"].str.strip().str.lower() == both["answer_y"].str.strip().str.lower()
    assert one.answers.same_text == pytest.approx(same.mean())
    counts = (both["correct_x"] & ~both["correct_y"]).sum(), (~both["correct_x"] & both["correct_y"]).sum()
    assert (one.answers.only_first, one.answers.only_second) == counts


def test_probes_on_the_same_answers_say_so(cells: Sequence[RecordedCell]) -> None:
    """Samples come with semantic entropy: decoding differs, and the greedy answers are the same."""
    one = only(compare_cells([cells[0], cells[3]], "probe", seed=0, resamples=50).made)
    assert cells[0].config["decoding.do_sample"] != cells[3].config["decoding.do_sample"]
    assert (one.pair.first_name, one.pair.second_name) == ("semantic_entropy", "gnll")
    assert (one.accuracy.difference, one.accuracy.note) == (None, SAME_ANSWERS)
    assert np.isnan(one.accuracy.p_holm)
    assert one.auroc.difference is not None
    assert (
        "same answers"
        in comparisons_table(compare_cells([cells[0], cells[3]], "probe", seed=0, resamples=50)).markdown()
    )


def test_models_are_paired_by_example_though_each_is_right_on_others(cells: Sequence[RecordedCell]) -> None:
    """The random model is never right: accuracy differs, its AUROC is undefined, and nothing breaks."""
    one = only(compare_cells([cells[0], cells[-1]], "model", seed=0, resamples=100).made)
    names = (one.pair.first_name, one.pair.second_name)
    assert names == ("tiny", "checkpoint-llama")  # the smaller is the baseline
    assert one.accuracy.difference is not None
    assert one.accuracy.difference.value == cells[0].record.metrics["accuracy"]
    assert one.auroc.difference is not None
    assert np.isnan(one.auroc.difference.value)


def test_a_key_is_compared_by_its_value_and_a_group_by_all_its_keys(cells: Sequence[RecordedCell]) -> None:
    by_key = only(compare_cells(cells, "prompt.num_few_shot", seed=0, resamples=50).made)
    assert (by_key.pair.first_name, by_key.pair.second_name) == ("2", "0")
    by_group = only(compare_cells(cells, "prompt", seed=0, resamples=50).made)
    assert (by_group.pair.first_name, by_group.pair.second_name) == ("num_few_shot=2", "num_few_shot=0")
    assert by_key.auroc == by_group.auroc


def test_a_trained_probes_accuracy_is_that_of_its_calls(cells: Sequence[RecordedCell]) -> None:
    """A second cell like the logistic one, its threshold moved: only what it calls true changes."""
    cell = cells[4]
    metrics = dict(cell.record.metrics)
    changed = replace(
        cell,
        record=replace(
            cell.record, cell="f" * 16, metrics=metrics | {"threshold": metrics["threshold"] + 0.5}
        ),
        config={**cell.config, "probe.class_weight": "balanced"},
    )
    one = only(compare_cells([cell, changed], "probe.class_weight", seed=0, resamples=100).made)
    assert (one.auroc.difference, one.auroc.note) == (None, SAME_SCORES)
    calls = [cell.values > threshold for threshold in (metrics["threshold"], metrics["threshold"] + 0.5)]
    right = [(call == cell.labels).mean() for call in calls]
    sides = (0, 1) if one.pair.first is cell else (1, 0)
    assert one.accuracy.difference is not None
    assert right[0] == pytest.approx(metrics["accuracy"])
    assert one.accuracy.difference.value == pytest.approx(right[sides[0]] - right[sides[1]])


def test_holm_is_over_the_whole_table_and_the_same_numbers_count_once(cells: Sequence[RecordedCell]) -> None:
    """Three probes' worth of the same two readings: their accuracies are one test."""
    copies = [
        replace(
            cell,
            record=replace(cell.record, cell=f"{number}{cell.record.cell[1:]}"),
            config={**cell.config, "seed": str(number)},
        )
        for number in range(3)
        for cell in cells[:2]
    ]
    found = compare_cells([*copies, cells[2], cells[4]], "quantization", seed=0, resamples=200)
    assert len(found.made) == 3
    assert found.n_tests == 2
    first = found.made[0]
    assert first.accuracy.difference is not None
    assert first.auroc.difference is not None
    adjusted = holm([first.accuracy.difference.p_value, first.auroc.difference.p_value])
    for one in found.made:
        assert (one.accuracy.p_holm, one.auroc.p_holm) == pytest.approx(tuple(adjusted))


def test_data_sets_share_no_example(cells: Sequence[RecordedCell]) -> None:
    other = replace(
        cells[0],
        config={**cells[0].config, "dataset.path": "other"},
        record=replace(cells[0].record, cell="e" * 16),
    )
    object.__setattr__(other, "scores", cells[0].scores.rename(index=lambda name: f"other {name}"))
    found = compare_cells([cells[0], other], "dataset", seed=0, resamples=50)
    assert found.made == []
    assert [unpaired.reason for unpaired in found.not_made] == ["0 test examples in common"]
    assert "Not compared:" in comparisons_table(found).markdown()


def test_where_a_cell_ran_does_not_part_it(cells: Sequence[RecordedCell]) -> None:
    moved = replace(
        cells[1],
        record=replace(cells[1].record, choices={**cells[1].record.choices, "device_map": "cpu"}),
        config={
            **cells[1].config,
            "device_map.strategy": "cpu",
            "store_dir": "elsewhere",
            "decoding.batch_size": "3",
        },
    )
    pairs, alone = find_pairs([cells[0], moved], "quantization")
    assert len(pairs) == 1
    assert alone == []
    with pytest.raises(ConfigError, match=r"report\.compare=probe has nothing to compare"):
        find_pairs([cells[0], moved], "probe")


def test_agreement_by_hand() -> None:
    found = agreement(["The cat.", "dog", "a", "b"], ["cat", "dogs", "a", "c"], [1, 1, 0, 0], [1, 0, 0, 1])
    assert (found.same_text, found.same_verdict, found.kappa) == (0.5, 0.5, 0.0)
    assert (found.only_first, found.only_second) == (1, 1)
    assert np.isnan(agreement(["a"], ["a"], [True], [True]).kappa)
    with pytest.raises(ValueError, match="as many answers"):
        agreement(["a"], ["a", "b"], [True], [True])


def test_a_filter_changes_no_p_value_unless_asked(cells: Sequence[RecordedCell]) -> None:
    """The family is all recorded comparisons along a key, or, if asked, those shown."""
    shown = [cells[0], cells[3]]
    whole = compare_cells(cells, "probe", seed=0, resamples=200)
    part = compare_cells(shown, "probe", seed=0, resamples=200, family=cells)
    alone = compare_cells(shown, "probe", seed=0, resamples=200)
    assert (part.n_tests, part.family.endswith(f"of all recorded {len(cells)} cells")) == (
        whole.n_tests,
        True,
    )
    assert alone.n_tests <= whole.n_tests
    one = only(part.made)
    assert one.auroc.p_holm == next(
        other.auroc.p_holm
        for other in whole.made
        if other.pair.first.record.cell == one.pair.first.record.cell
    )


QUESTIONS = ("who?", "where?", "when?", "why?")
REFERENCES = (["a"], ["b"], ["c"], ["d"])


@pytest.mark.parametrize(
    ("compared", "overrides", "question", "references", "n"),
    [
        ("quantization", "quantization=nf4", QUESTIONS, REFERENCES, 4),
        ("quantization", "quantization=nf4", (*QUESTIONS[:2], "whom?", "what?"), REFERENCES, 2),
        ("quantization", "quantization=nf4", QUESTIONS, (*REFERENCES[:3], ["e"]), 3),
        ("dataset", "dataset=facts_rare", QUESTIONS, (*REFERENCES[:3], ["e"]), 4),
        ("dataset", "dataset=facts_rare", QUESTIONS[::-1], REFERENCES, 0),
    ],
)
def test_only_what_is_the_same_beside_its_id_is_compared(
    recorder: Recorder,
    compared: str,
    overrides: str,
    question: Sequence[str],
    references: Sequence[object],
    n: int,
) -> None:
    """An id may be a row's number: of another file, or of one that was edited."""
    recorder(metrics={}, question=QUESTIONS, references=REFERENCES)
    recorder(overrides, metrics={}, question=question, references=references, answers=("w", "x", "y", "z"))
    found = compare_cells(recorder.cells, compared, seed=0, resamples=20)
    assert [one.n for one in found.made] == [n] * bool(n)
    assert [one.reason for one in found.not_made] == [
        "0 test examples in common; 4 have equal ids but other questions or truths"
    ] * (not n)
    says = [told["says"] for told in pairs_behind(found.made).values()]
    assert says == [text for text in says if text.startswith(f"{n} questions: {n} answers")]


def test_cells_that_do_not_differ_in_it_are_no_pair(recorder: Recorder) -> None:
    """The same command before and after its file was edited, and another quantization."""
    for overrides in ((), (), ("quantization=nf4",)):
        recorder(*overrides, metrics={})
    once, again, nf4 = recorder.cells
    pairs, lone = find_pairs([once, again, nf4], "quantization")
    assert [(pair.first, pair.second) for pair in pairs] == [(nf4, once), (nf4, again)]
    assert lone == []
    recorder("quantization=int8", "prompt.num_few_shot=0", metrics={})
    apart = [once, again, recorder.cells[-1]]
    assert find_pairs(apart, "quantization")[0] == []
    assert [one.cells for one in find_pairs(apart, "quantization")[1]] == [(cell,) for cell in apart]


def test_statements_without_labels_are_not_compared(cells: Sequence[RecordedCell]) -> None:
    metrics = {name: value for name, value in cells[0].record.metrics.items() if name != "auroc"}
    bare = replace(cells[0], record=replace(cells[0].record, metrics=metrics))
    found = compare_cells([bare, cells[1]], "quantization", seed=0, resamples=20)
    assert [one.reason for one in found.not_made] == ["statements without labels"]


def test_the_scores_of_one_cell_are_compared(cells: Sequence[RecordedCell]) -> None:
    """Each with the probe's own and with G-NLL, by hand for one pair; signs turn below the diagonal of the matrix."""
    cell = cells[3]
    table = compared_scores_table([cell], seed=0, flips=200)
    assert table is not None
    names = ["semantic_entropy", *cell.other_scores]
    assert len(names) > MOST_IN_MATRIX
    assert table.columns[-2:] == ["semantic entropy", "gnll"]
    assert len(table.records) == 2 * len(names) - 3
    record = next(one for one in table.records if one["second"] == "gnll")
    labels, others = cell.labels, cell.other_values
    assert record["auroc_value"] == pytest.approx(
        roc_auc_score(labels, cell.values) - roc_auc_score(labels, others["gnll"])
    )
    below, above = table.rows[names.index("gnll")], table.rows[0]
    first, second = above[-1], below[-2]
    assert first.split()[0].lstrip("+-") == second.split()[0].lstrip("+-")
    assert above[-2] == "-"
    assert compared_scores_table([cells[4]], seed=0) is None


def test_answers_are_judged_by_other_rules(cells: Sequence[RecordedCell]) -> None:
    table = rules_table([cells[0], cells[4]], seed=0)
    assert table is not None
    frame = table.frame()
    assert set(frame["score"]) == {"gnll", *cells[0].other_scores}
    chosen = frame[(frame["rule"] == "chosen") & (frame["score"] == "gnll")].iloc[0]
    assert chosen["accuracy"] == cells[0].record.metrics["accuracy"]
    for name in ("accuracy", "auroc"):
        for end in ("", "_ci_low", "_ci_high"):
            assert chosen[f"{name}{end}"] == cells[0].record.metrics[f"{name}{end}"]
    by_f1 = frame[(frame["rule"] == "f1>=0.5") & (frame["score"] == "gnll")].iloc[0]
    assert by_f1["accuracy_ci_low"] == pytest.approx(chosen["accuracy_ci_low"])
    assert by_f1["auroc_ci_low"] == pytest.approx(chosen["auroc_ci_low"])
    assert set(frame["chosen_rule"]) == {"squad, threshold 0.5"}
    assert cells[0].record.notes["rule"] == "squad, threshold 0.5"
    assert any("chosen (squad, threshold 0.5)" in row for row in table.rows)
    assert {"em", "f1>=0.5", "contains", "rouge_l>0.3"} <= set(frame["rule"])
    by_rule = frame.drop_duplicates("rule").set_index("rule")["accuracy"]
    assert by_rule["f1>=0.5"] == by_rule["chosen"]
    assert by_rule["f1>=0.3"] >= by_rule["f1>=0.5"] >= by_rule["f1>=0.7"] >= by_rule["em"]
    assert rules_table([cells[4]], seed=0) is None


def test_a_comparison_of_few_groups_is_marked(cells: Sequence[RecordedCell]) -> None:
    few = [replace(cell) for cell in cells[:2]]
    for cell in few:
        cell.scores["group"] = [f"paragraph {row % 4}" for row in range(len(cell.scores))]
    rows = {}
    for name, compared in (("many", cells[:2]), ("few", few)):
        table = comparisons_table(compare_cells(compared, "quantization", seed=0, resamples=50))
        rows[name] = dict(zip(table.columns, table.rows[0], strict=True))
        assert any(note.startswith("* ") and note.endswith(": 4 groups.") for note in table.notes) is (
            name == "few"
        )
    for column in ("answer accuracy", "AUROC"):
        assert rows["few"][column].endswith(" *")
        assert not rows["many"][column].endswith("*")


def test_rules_that_judge_alike_have_the_same_intervals(cells: Sequence[RecordedCell]) -> None:
    """Of clustered answers too, whose intervals are resampled: fewer resamples would say another interval."""
    cell = replace(cells[0])
    cell.scores["group"] = [f"paragraph {row // 4}" for row in range(len(cell.scores))]
    table = rules_table([cell], seed=0)
    assert table is not None
    frame = table.frame()
    chosen = frame[frame["rule"].isin(["chosen", "f1>=0.5"])].groupby("score")
    ends = [f"{name}_ci_{end}" for name in ("accuracy", "auroc") for end in ("low", "high")]
    assert (chosen[ends].nunique() == 1).all(axis=None)


def test_the_rules_table_of_other_datasets_and_of_older_records(cells: Sequence[RecordedCell]) -> None:
    """A dataset that has a language, set or not; a record from before it said its rule."""
    cell = cells[0]
    bare = replace(
        cell.record, notes={name: note for name, note in cell.record.notes.items() if name != "rule"}
    )
    assert replace(cell, record=bare).rule == "-"
    assert replace(cell, record=bare, config={**cell.config, "dataset.rule": "exact"}).rule == "exact"
    for language in ("null", "de"):
        told = replace(cell, record=bare, config={**cell.config, "dataset.language": language})
        table = rules_table([told], seed=0)
        assert table is not None
        assert {"chosen", "em", "contains"} <= set(table.frame()["rule"])
    assert cell.references is not None
    assert all(isinstance(wanted, list) for wanted in cell.references["references"])
