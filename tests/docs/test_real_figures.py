"""The figures of a real small model, made again where the model and its data are at hand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pages
import pytest

pytestmark = pytest.mark.slow

MODEL = "PROBEGRID_SMOLLM2"
"""Names the folder of SmolLM2-135M-Instruct."""
KEPT = pages.DOCS / "real_figures"
_NUMBER = re.compile(r"\d+\.\d+")
_PRECISION = 0.02  # sums in another order move a probe on a few hundred statements


@pytest.mark.skipif(
    not {MODEL, "PROBEGRID_DATA"} <= os.environ.keys(), reason=f"{MODEL} and PROBEGRID_DATA are not set"
)
def test_the_layers_of_cities_are_those_of_the_page(tmp_path: Path) -> None:
    data = Path(os.environ["PROBEGRID_DATA"])
    files = {
        "model": os.environ[MODEL],
        "squad": data / "squad/dev-v1.1-super-bowl-50.json",
        "cities": data / "statements/cities.csv",
        "ntml": data / "ntml/3T3L_500samples.jsonl",
        "work": tmp_path / "work",
        "out": tmp_path / "out",
    }
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    command = [sys.executable, "benchmarks/real_figures.py", *options, "--only", "cities"]
    subprocess.run(command, cwd=pages.ROOT, check=True, capture_output=True)
    shown, found = ((folder / "cities" / "probes.md").read_text() for folder in (KEPT, tmp_path / "out"))
    assert _NUMBER.sub("#", shown) == _NUMBER.sub("#", found)
    pairs = zip(_NUMBER.findall(shown), _NUMBER.findall(found), strict=True)
    assert max(abs(float(one) - float(other)) for one, other in pairs) <= _PRECISION


def test_every_file_that_was_made_is_shown() -> None:
    page = (pages.DOCS / "real_figures.md").read_text()
    made = [file.relative_to(pages.DOCS).as_posix() for file in KEPT.glob("*/*")]
    assert made
    assert all(name in page for name in made)


def test_the_readmes_ranking_is_the_pages() -> None:
    made = (KEPT / "judges" / "ranking.md").read_text()
    rows = {cells[1]: cells for line in made.splitlines() if len(cells := re.split(r" *\| *", line)) > 5}
    readme = (pages.ROOT / "README.md").read_text()
    table = readme.partition("| score | AUROC | minus G-NLL | p |\n|---|---|---|---|\n")[2].partition("\n\n")[
        0
    ]
    shown = [re.split(r" *\| *", line)[1:-1] for line in table.splitlines()]
    assert len(shown) == 8
    assert [[name, *rows[name][3:6]] for name, *_ in shown] == shown
    assert f"Of {len(rows) - 2} scores" in readme
