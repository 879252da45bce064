"""What a person sees while a cell runs, in a log and in a real notebook."""

from __future__ import annotations

import io
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from rich.console import Console

from probegrid.progress import Progress, in_notebook


def test_a_log_gets_a_line_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(Console(file=io.StringIO())) as progress:
        progress.start("answers", total=3)
        progress.advance(1, tokens=5)
        progress.advance(2, tokens=5)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("answers: 3/3 ")
    assert not in_notebook()


@pytest.mark.slow
def test_a_notebook_shows_a_bar_and_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code = "import probegrid\nprobegrid.run(['dataset.num_samples=8', 'tracking=none']).metrics['n']"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = notebook.cells[0].outputs
    shown = "".join(str(output.get("text", output.get("data", ""))) for output in outputs)
    assert "answers: 100%" in shown
    assert "accuracy" in shown
    assert outputs[-1]["data"]["text/plain"] == "8"
