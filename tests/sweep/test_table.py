"""A sweep's table: the numbers of done cells from their records, at 80 columns and in a log."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from recorder import Recorder
from rich.console import Console

from probegrid.report.summary import numbers
from probegrid.sweep.rows import CellRow, Stage
from probegrid.sweep.table import LiveTable, cell_table, numbers_of
from probegrid.tracking.sweep_folder import Manifest, ManifestCell, SweepFolder

TIMES = {"load_s": 12.0, "read_s": 34.0, "tokens_per_s": 1234.0}
INTERVALS = {"accuracy_ci_low": 0.41, "accuracy_ci_high": 0.59, "auroc_ci_low": 0.7, "auroc_ci_high": 0.8}


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "results")


@pytest.fixture
def folder(recorder: Recorder) -> SweepFolder:
    """A sweep of three recorded cells and one whose record is gone."""
    for quantization in ("none", "nf4"):
        recorder(f"quantization={quantization}", metrics=TIMES | INTERVALS)
    transfer = {f"transfer_auroc_cities{end}": 0.9 for end in ("", "_ci_low", "_ci_high")}
    recorder(
        "probe=logistic", "dataset=facts_statements", metrics=TIMES | INTERVALS | transfer | {"precision": 1}
    )
    sweep = SweepFolder(recorder.folder, "0123456789")
    cells = [(cell.record.name, cell.record.cell) for cell in recorder.cells]
    sweep.write_manifest(
        Manifest(
            id=sweep.id,
            cells=tuple(ManifestCell(name, (), key) for name, key in [*cells, ("gone", "f" * 16)]),
            argv=("probegrid",),
            cwd="",
            host="",
            git_commit=None,
            versions={},
            launcher={},
        )
    )
    return sweep


def rows(folder: SweepFolder) -> list[CellRow]:
    cells = folder.read_manifest().cells
    return [CellRow(cell, known.name, Stage.done, job="1234567_0") for cell, known in enumerate(cells)]


def printed(folder: SweepFolder, width: int, *, is_wide: bool, more: CellRow | None = None) -> str:
    console = Console(width=width, file=io.StringIO())
    shown = [*rows(folder), *([more] if more else [])]
    console.print(cell_table(shown, numbers_of(folder, shown), is_wide=is_wide))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_log_has_a_cells_numbers_in_one_line(folder: SweepFolder, recorder: Recorder) -> None:
    table = printed(folder, 200, is_wide=True)
    for cell in recorder.cells[:2]:
        assert f"│ 1234567_0 │ {', '.join(numbers(cell.record))} " in table
    assert "answer accuracy 0.500 [0.410, 0.590], AUROC 0.750 [0.700, 0.800]" in table
    assert "AUROC on cities 0.900 [0.900, 0.900]" in table
    assert "its record is gone" in table


def test_a_narrow_terminal_has_them_one_below_the_other(folder: SweepFolder, recorder: Recorder) -> None:
    failed = CellRow(
        3, "sick", Stage.failed, "RuntimeError: [bold]no[/]", Path("tracebacks/3.txt"), "1234567_1"
    )
    table = printed(folder, 80, is_wide=False, more=failed)
    assert max(map(len, table.splitlines())) <= 80
    lines = [[part.strip() for part in line.strip("│").split("│")] for line in table.splitlines()]
    last = [line[-1] for line in lines]
    start = last.index("n 4")
    assert last[start : start + 3] == ["n 4", "answer accuracy 0.500 [0.410,", "0.590]"]
    assert "1234567_0" in [line[1] for line in lines if len(line) > 1]
    assert "RuntimeError: [bold]no[/]" in last
    assert "see tracebacks/3.txt" in last


def test_a_damaged_record_does_not_take_the_table_along(folder: SweepFolder, recorder: Recorder) -> None:
    (recorder.cells[0].folder / "result.json").write_text("{")
    found = numbers_of(folder, rows(folder))
    assert "is damaged; remove the folder" in found[0][0]
    assert found[1][0] == "n 4"


def test_a_cell_that_is_done_is_logged_once_with_its_numbers(
    folder: SweepFolder, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, *_ = rows(folder)
    running = CellRow(1, second.name, Stage.running, "answers 3/4", job="1234567_0")
    before = CellRow(2, "before", Stage.done, "done before")
    with LiveTable(folder) as table:
        table.show([first, running, before])
        table.show([first, second, before])
        table.show([first, second, before])
    logged = capsys.readouterr().err.splitlines()
    said = [f"{cell.record.name}: {', '.join(numbers(cell.record))}" for cell in recorder.cells[:2]]
    assert logged == [
        said[0],
        f"2 done, 1 running (1 of them before); {running.name}: answers 3/4",
        said[1],
        "3 done (1 of them before)",
    ]
