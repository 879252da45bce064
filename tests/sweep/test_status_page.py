"""A sweep's page and its form for a narrow terminal: what a row says is there, as text, and an ended sweep rests."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from probegrid.sweep.heartbeat import Heartbeat
from probegrid.sweep.rows import CellRow, Stage
from probegrid.sweep.status_page import StatusPage, status_page
from probegrid.sweep.table import cell_list
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import Manifest, ManifestCell

RUNNING = CellRow(
    0,
    "tiny-none-facts-gnll <b>",
    Stage.running,
    "answers 12/100, 3 min, 512 tokens/s, about 20 min left, on node-7",
    Path("/logs/1.log"),
    job="41",
    node="node-7",
)
DONE = CellRow(1, "tiny-nf4-facts-gnll", Stage.done, job="41")
FOUND = {1: ["n 100", "AUROC 0.900 [0.850, 0.940]"]}


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    made = SweepFolder(tmp_path, "one")
    cells = tuple(ManifestCell(row.name, ()) for row in (RUNNING, DONE))
    made.write_manifest(Manifest("one", cells, ("probegrid", "-m", "x=1,2"), "/", "host", None, {}, {}))
    return made


def test_a_page_of_what_is_on_its_way_loads_itself_again(folder: SweepFolder) -> None:
    page = status_page(folder, [DONE, RUNNING], FOUND)
    assert 'http-equiv="refresh"' in page
    for text in (RUNNING.detail, "/logs/1.log", "41 on node-7", "AUROC 0.900 [0.850, 0.940]", "-m x=1,2"):
        assert text in page
    assert "<b>" not in page
    assert page.index("tiny-none") < page.index("tiny-nf4")  # what runs stands first
    assert "<script" not in page


def test_a_page_of_an_ended_sweep_rests_and_leads_to_the_report(folder: SweepFolder) -> None:
    assert "index.html" not in status_page(folder, [DONE], FOUND)
    folder.report_dir.mkdir()
    (folder.report_dir / "index.html").write_text("report")
    page = status_page(folder, [DONE], FOUND)
    assert 'http-equiv="refresh"' not in page
    assert 'href="report/index.html"' in page


def test_the_page_is_written_now_and_then_and_at_the_end(folder: SweepFolder) -> None:
    page = StatusPage(folder)
    page.show([RUNNING, DONE], FOUND)
    first = page.file.read_text()
    page.show([DONE, DONE], FOUND)  # at once, though it was written just now: nothing will come after it
    assert page.file.read_text() != first
    page.file.unlink()
    again = StatusPage(folder)
    again.show([RUNNING], {})
    again.file.unlink()
    again.show([RUNNING], {})
    assert not again.file.exists()


@pytest.mark.parametrize("width", [36, 50])
def test_a_phones_terminal_loses_nothing(width: int) -> None:
    text = io.StringIO()
    Console(file=text, width=width).print(cell_list([RUNNING, DONE], FOUND, hidden=3))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    told = re.sub(r"\s+", "", text.getvalue())
    for said in (RUNNING.name, RUNNING.detail, "/logs/1.log", DONE.name, *FOUND[1], "and 3 more cells"):
        assert re.sub(r"\s+", "", said) in told


def test_a_heartbeat_tells_the_rate_of_its_step() -> None:
    told: list[tuple[str, int, int, float | None, float | None]] = []
    with Heartbeat(lambda *beat: told.append(beat)) as progress:
        progress.start("answers", total=10)
        progress._reported = 0.0
        progress.advance(5, tokens=100)
        progress.start("activations", total=10)
    rates = [rate for *_, rate in told]
    assert rates[0] is None
    assert rates[1] is not None and rates[1] > 0
    assert rates[2] is None  # of the step, not of all
