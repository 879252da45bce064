"""The figures of the embedded model in README and pages, read out of them and held against what the cells give.

Seconds, rates and keys are left out; the rest is compared to the last digit that is printed, and one more: sums in
another order round another way. Figures of GPUs are of the machines that pages name.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pages
import pytest

import probegrid
from probegrid.cell.look import EXAMPLES
from probegrid.cell.result import Result
from probegrid.cell.run import summarize
from probegrid.tracking import record

pytestmark = pytest.mark.slow  # whole cells of the embedded model

_NUMBER = re.compile(r"-?\d+\.\d+|-?\d+")
_MEASURED = re.compile(r"^(load .* tokens/s|results/[0-9a-f]+$)")
_PRECISION = 0.0015  # a digit in the last place
JUDGES = ("gnll", "semantic_entropy", "p_true", "logistic")
SETS = {"facts": "facts", "rare facts": "facts_rare"}
ALL, WHY = "PROBEGRID_FIGURES" in os.environ, "half a minute a row: PROBEGRID_FIGURES is not set"
PRECISIONS = {"unquantized": "none", "NF4": "nf4"}


def _text(page: str) -> str:
    return next(path for path in pages.pages() if path.name == page).read_text()


def _block(page: str, first: str) -> list[str]:
    """The lines of the page's fenced block that begins with this line."""
    found = [block.text.splitlines() for block in pages.blocks() if block.page == page]
    return next(lines for lines in found if lines[0] == first)


def _numbers_of(lines: Sequence[str]) -> list[str]:
    return [line.strip() for line in lines if not _MEASURED.match(line.strip())]


def _agree(shown: str, found: str) -> bool:
    """Whether two lines say the same, their numbers within one of the last digit printed."""
    pairs = list(zip(_NUMBER.findall(shown), _NUMBER.findall(found), strict=False))
    return _NUMBER.sub("#", shown) == _NUMBER.sub("#", found) and all(
        abs(float(one) - float(other)) <= (_PRECISION if "." in one else 0) for one, other in pairs
    )


def _assert_agree(shown: Sequence[str], found: Sequence[str]) -> None:
    stale = [pair for pair in zip(shown, found, strict=True) if not _agree(*pair)]
    assert not stale, "\n".join(f"shown: {one}\nfound:  {other}" for one, other in stale)


def _run(folder: Path, *overrides: str) -> Result:
    places = (f"store_dir={folder / 'store'}", f"results_dir={folder / 'results'}", "tracking=none")
    return probegrid.run([*places, *overrides])


def _summary(result: Result) -> list[str]:
    written = record.read(result.folder.parent, result.key)
    assert written is not None
    return _numbers_of(summarize(written, Path("results") / result.key).splitlines())


def test_the_default_cell(tmp_path: Path) -> None:
    """What ``make run`` prints: the examples, by what they are judged, and every number; in the README the numbers."""
    shown = _block("start.md", "tiny-none-facts-gnll")
    result = _run(tmp_path)
    assert shown[1:5] == result.notes[EXAMPLES].splitlines()
    start = next(row for row, line in enumerate(shown) if line.startswith("tiny-none-facts-gnll: n "))
    _assert_agree(_numbers_of(shown[start:]), _summary(result))
    _assert_agree(_numbers_of(_block("README.md", shown[start])), _summary(result))


def test_the_probe_on_activations(tmp_path: Path) -> None:
    first = "$ probegrid dataset=facts_statements probe=logistic probe.layers=all"
    shown = _block("probes.md", first)
    _assert_agree(_numbers_of(shown[1:]), _summary(_run(tmp_path, *shlex.split(first)[2:])))


def _judges_table() -> dict[tuple[str, str], list[str]]:
    """The cells of the table of judges, by the set and the precision of its rows."""
    row = re.compile(r"^\| (facts|rare facts), (unquantized|NF4) \| (.*) \|$", re.MULTILINE)
    rows = row.findall(_text("judges.md"))
    assert rows == row.findall(_text("README.md"))
    return {(name, precision): cells.split(" | ") for name, precision, cells in rows}


def test_the_table_of_judges_is_whole() -> None:
    assert [*_judges_table()] == [(name, precision) for name in SETS for precision in PRECISIONS]
    assert all(len(cells) == len(JUDGES) for cells in _judges_table().values())


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=" ".join(row), marks=() if first else pytest.mark.skipif(not ALL, reason=WHY))
        for row, first in zip(_judges_table(), [True, False, False, False], strict=True)
    ],
)
def test_the_table_of_judges(row: tuple[str, str], tmp_path: Path) -> None:
    """The cells of ``experiment=uncertainty``, one after another over one store."""
    name, precision = row
    cell = (f"dataset={SETS[name]}", f"quantization={PRECISIONS[precision]}", "dataset.num_samples=600")
    found = []
    for probe in JUDGES:
        metrics = _run(tmp_path, *cell, f"probe={probe}").metrics
        ends = f"[{metrics['auroc_ci_low']:.3f}, {metrics['auroc_ci_high']:.3f}]"
        found.append(f"{metrics['auroc']:.3f} {ends}")
    _assert_agree(_judges_table()[row], found)


_RANKED = {
    "G-NLL": "auroc",
    "probability margin": "probability_margin_auroc",
    "CCP": "ccp_auroc",
    "CoCoA (MSP)": "cocoa_msp_auroc",
    "mean NLL": "mean_nll_auroc",
    "RAUQ": "rauq_auroc",
    "semantic entropy": "semantic_entropy_auroc",
    "kernel language entropy": "kernel_language_entropy_auroc",
    "EigenScore": "eigenscore_auroc",
    "mean token entropy": "mean_token_entropy_auroc",
    "p(true)": "p_true_auroc",
    "p(true) with the hint": "p_true_hint_auroc",
}
"""Rows of the ranking that the cell of all judges has, by its metrics; trained probes have cells of their own."""


def _ranking() -> dict[str, str]:
    """AUROC and interval of each row of the ranking of judges."""
    table = _text("judges.md").partition("The first lines of that ranking")[2].partition("![All judges")[0]
    return dict(re.findall(r"^\| ([^|]+) \| (\d\.\d+ \[[^|]+\]) \|", table, re.MULTILINE))


def test_the_ranking_of_judges_is_in_order() -> None:
    areas = [float(shown.partition(" ")[0]) for shown in _ranking().values()]
    assert areas == sorted(areas, reverse=True)
    assert _ranking().keys() - _RANKED.keys() == {"P(IK)"}
    assert _RANKED.keys() <= _ranking().keys()


@pytest.mark.skipif(not ALL, reason=WHY)
def test_the_ranking_of_judges(tmp_path: Path) -> None:
    metrics = _run(tmp_path, "probe=judges", "dataset.num_samples=400").metrics
    found = {
        name: f"{metrics[metric]:.3f} [{metrics[f'{metric}_ci_low']:.3f}, {metrics[f'{metric}_ci_high']:.3f}]"
        for name, metric in _RANKED.items()
    }
    _assert_agree([_ranking()[name] for name in found], list(found.values()))


@pytest.mark.skipif("PROBEGRID_DATA" not in os.environ, reason="PROBEGRID_DATA is not set")
def test_words_alone_by_three_splits(tmp_path: Path) -> None:
    found = re.search(
        r"test AUROC (0\.\d+) with\s`random` rows, (0\.\d+) `by_conversation`, and (0\.\d+) `leakfree`",
        _text("probes.md"),
    )
    assert found is not None
    assert all(area in _text("layer22.md") for area in found.groups())
    path = Path(os.environ["PROBEGRID_DATA"]) / "ntml/3T3L_500samples.jsonl"
    data = ("dataset=ntml", f"dataset.path={path}", "dataset.num_samples=500", "probe=text_baseline")
    areas = [
        f"{_run(tmp_path, *data, f'probe.split={split}').metrics['auroc']:.3f}"
        for split in ("random", "by_conversation", "leakfree")
    ]
    _assert_agree(found.groups(), areas)
