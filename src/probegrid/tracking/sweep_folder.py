"""Everything a sweep keeps on disk, ``results_dir/.sweeps/<id>/``.

    manifest.json        the cells, the command, the code: written at each submission
    cells.pkl            their typed configs, for the workers
    uncommitted.diff     what the checkout had beside its commit
    states/<n>.json      how cell n is doing, written by its worker alone
    tracebacks/<n>.txt   why it failed
    submissions/<k>.json the jobs of the k-th submission, ``submissions/<k>/`` their logs and what they say of
                         themselves: ``<job>.json``, and in ``<job>.end.txt`` why one ended for good
    stop.json            the last deliberate end
    summary.csv          the last table
    report/              tables, figures and page over its cells, where it is tracked

Knows names and formats. Files appear whole or not at all.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from probegrid.disk import atomic, disk_errors, files_in, lies_in, unreadable
from probegrid.errors import StoreError
from probegrid.schema import CellSpec, Resources
from probegrid.tracking.redaction import holds_secret, redact, redact_override, redact_words
from probegrid.tracking.sweep_state import (
    CellState,
    Job,
    JobNote,
    Manifest,
    ManifestCell,
    Phase,
    Stop,
    Submission,
)

SWEEPS_FOLDER = ".sweeps"
T = TypeVar("T")


class SweepFolder:
    """Reads and writes the files of one sweep."""

    def __init__(self, results_dir: Path | str, sweep: str) -> None:
        self.results_dir = Path(results_dir)
        self.id = sweep
        self.path = self.results_dir / SWEEPS_FOLDER / sweep

    @property
    def manifest_file(self) -> Path:
        """``manifest.json``."""
        return self.path / "manifest.json"

    @property
    def diff_file(self) -> Path:
        """``uncommitted.diff``."""
        return self.path / "uncommitted.diff"

    @property
    def summary_file(self) -> Path:
        """``summary.csv``."""
        return self.path / "summary.csv"

    @property
    def report_dir(self) -> Path:
        """``report/``."""
        return self.path / "report"

    def public_files(self) -> list[Path]:
        """What is there of the files that MLflow's parent run of the sweep shows."""
        files = (self.manifest_file, self.diff_file, self.summary_file, *files_in(self.report_dir))
        return [file for file in files if lies_in(file, self.results_dir)]

    def traceback_file(self, cell: int) -> Path:
        """``tracebacks/<n>.txt``."""
        return self.path / "tracebacks" / f"{cell}.txt"

    def submission_dir(self, number: int) -> Path:
        """``submissions/<k>/``, where the jobs of a submission leave their logs."""
        return self.path / "submissions" / str(number)

    def write_manifest(self, manifest: Manifest) -> None:
        """Write ``manifest.json``, secrets removed."""
        cells = [
            replace(cell, overrides=tuple(map(redact_override, cell.overrides))) for cell in manifest.cells
        ]
        shown = replace(manifest, cells=tuple(cells), argv=tuple(redact_words(manifest.argv)))
        self._write_json(self.manifest_file, asdict(shown))

    def read_manifest(self) -> Manifest:
        """Read ``manifest.json``.

        Raises:
            StoreError: there is none, or it is damaged.
        """
        found = self.read_json(self.manifest_file, _manifest)
        if found is None:
            raise StoreError(f"{self.path} holds no sweep; run its command again to make it.")
        return found

    def write_cells(self, cells: Sequence[CellSpec | None]) -> None:
        """Write the typed configs for the workers, None where a cell cannot work; the secrets they need are in it."""
        self._write(self.path / "cells.pkl", pickle.dumps(list(cells)), private=True)

    def read_cells(self) -> list[CellSpec | None]:
        """Read the typed configs; they were written by this user's own submission.

        Raises:
            StoreError: another user has written them since.
        """
        file = self.path / "cells.pkl"
        try:
            cells: list[CellSpec | None] = pickle.loads(file.read_bytes())  # noqa: S301
        except OSError as error:
            raise unreadable(file, error) from error
        return cells

    def write_state(self, cell: int, state: CellState) -> None:
        """Write how a cell is doing."""
        self._write_json(self.path / "states" / f"{cell}.json", asdict(state))

    def read_state(self, cell: int) -> CellState | None:
        """Read how a cell is doing; None if no worker had it yet."""
        return self.read_json(
            self.path / "states" / f"{cell}.json",
            lambda values: CellState(**values | {"phase": Phase(values["phase"])}),
        )

    def read_states(self, count: int) -> list[CellState | None]:
        """Read how the first ``count`` cells are doing."""
        return [self.read_state(cell) for cell in range(count)]

    def write_submission(self, submission: Submission) -> None:
        """Write the jobs of a submission, for this user's eyes alone where its options hold a secret."""
        values = asdict(submission)
        text = json.dumps(values, indent=1, ensure_ascii=False)
        file = self.path / "submissions" / f"{submission.number}.json"
        self._write(file, text.encode(), private=holds_secret(values))

    def read_submissions(self) -> list[Submission]:
        """Read all submissions, the earliest first."""
        numbers = sorted(int(file.stem) for file in (self.path / "submissions").glob("*.json"))
        return [self.read_submission(number) for number in numbers]

    def read_submission(self, number: int) -> Submission:
        """Read one submission.

        Raises:
            StoreError: there is none, or it is damaged.
        """
        file = self.path / "submissions" / f"{number}.json"
        found = self.read_json(file, _submission)
        if found is None:
            raise StoreError(f"{file} is missing; run the command of the sweep again.")
        return found

    def next_submission(self) -> int:
        """A number whose folder no submission has used, made now."""
        numbers = [int(path.stem) for path in (self.path / "submissions").glob("*") if path.stem.isdecimal()]
        number = max(numbers, default=0) + 1
        with disk_errors(self.path):
            self.submission_dir(number).mkdir(parents=True)
        return number

    def write_note(self, number: int, job: str, note: JobNote) -> None:
        """Write what a job of submission ``number`` says of itself."""
        self._write_json(self.submission_dir(number) / f"{job}.json", asdict(note))

    def read_note(self, number: int, job: str) -> JobNote:
        """What a job says of itself; empty if it said nothing."""
        file = self.submission_dir(number) / f"{job}.json"
        return self.read_json(file, lambda values: JobNote(tuple(values["restarts"]))) or JobNote()

    def end_file(self, number: int, job: str) -> Path:
        """``submissions/<k>/<job>.end.txt``: why a job ended, where a second try would meet the same."""
        return self.submission_dir(number) / f"{job}.end.txt"

    def read_end(self, number: int, job: str) -> str | None:
        """Why a job ended for good, by its own word; None if it said nothing."""
        try:
            return self.end_file(number, job).read_text(errors="replace").strip()
        except FileNotFoundError:
            return None

    def write_stop(self, stop: Stop) -> None:
        """Write a deliberate end."""
        self._write_json(self.path / "stop.json", asdict(stop))

    def read_stop(self) -> Stop | None:
        """Read the last deliberate end; None if there was none."""
        return self.read_json(
            self.path / "stop.json", lambda values: Stop(**values | {"cells": tuple(values["cells"])})
        )

    def write_text(self, file: Path, text: str) -> None:
        """Write a text file of the sweep, secrets removed."""
        self._write(file, redact(text).encode())

    def write_json(self, file: Path, values: Any) -> None:
        """Write a JSON file of the sweep, secrets removed."""
        self._write_json(file, values)

    def read_json(self, file: Path, make: Callable[[Any], T]) -> T | None:
        """Read a JSON file of the sweep; None if it was never written.

        Args:
            file: of the sweep.
            make: makes of what was read what it stands for.

        Raises:
            StoreError: it may not be read, or is no JSON, or nothing can be made of it.
        """
        try:
            return make(json.loads(file.read_bytes()))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreadable(file, error) from error
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise StoreError(f"{file} is damaged; delete it and run the same command again.") from error

    def _write_json(self, file: Path, values: Any) -> None:
        self._write(file, json.dumps(redact(values), indent=1, ensure_ascii=False).encode())

    def _write(self, file: Path, content: bytes, *, private: bool = False) -> None:
        with disk_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        with atomic(file, private=private) as temporary:
            temporary.write_bytes(content)


def _manifest(values: Any) -> Manifest:
    cells = tuple(ManifestCell(**cell | {"overrides": tuple(cell["overrides"])}) for cell in values["cells"])
    return Manifest(**values | {"cells": cells, "argv": tuple(values["argv"])})


def _submission(values: Any) -> Submission:
    jobs = tuple(
        Job(**job | {"cells": tuple(job["cells"]), "resources": Resources(**job["resources"])})
        for job in values["jobs"]
    )
    return Submission(**values | {"jobs": jobs})


def list_sweeps(results_dir: Path | str) -> list[SweepFolder]:
    """Every sweep below ``results_dir``, the one that was submitted last at the end.

    Raises:
        StoreError: the folder of the sweeps may not be read.
    """
    folder = Path(results_dir) / SWEEPS_FOLDER
    try:
        os.listdir(folder)  # `Path.glob` says nothing of a folder that may not be read
        by_age = sorted(folder.glob("*/manifest.json"), key=lambda file: file.stat().st_mtime)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(folder, error) from error
    return [SweepFolder(results_dir, file.parent.name) for file in by_age]
