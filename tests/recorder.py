"""Recorded cells with given measurements, as those of machines that are not here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from probegrid.compose import compose_cell
from probegrid.report.cells import RecordedCell, load_cells
from probegrid.schema import to_plain
from probegrid.tracking import record
from probegrid.tracking.provenance import Provenance
from probegrid.tracking.record import CellRecord, Status


class Recorder:
    """Records cells by the real writer; each has a key of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0

    def __call__(
        self,
        *overrides: str,
        metrics: Mapping[str, float],
        gpus: Sequence[str] = (),
        host: str = "node-1",
        seconds: float = 100.0,
        notes: Mapping[str, str] | None = None,
        versions: Mapping[str, str] | None = None,
        answers: Sequence[str] = ("paris", "rome", "bonn", "oslo"),
        prompt: str = "Question: {}",
        others: Mapping[str, Sequence[float]] | None = None,
        **columns: Sequence[object],
    ) -> None:
        """Record a cell of ``overrides`` that started after the last one; each answer is to a question of its own.

        ``columns`` are further ones of its answers (``question``, ``references``), ``others`` its other scores.
        """
        self._count += 1
        spec = compose_cell(overrides)
        ids = [f"q{index}" for index in range(len(answers))]
        correct = [index % 2 == 0 for index in range(len(answers))]
        scores = {
            "example_id": ids,
            "group": ids,
            "split": ["test"] * len(ids),
            "label": correct,
            "score": [-float(index) for index in range(len(ids))],
        }
        given = {
            "example_id": ids,
            "prompt": [prompt.format(name) for name in ids],
            "answer": list(answers),
            "correct": correct,
            **columns,
        }
        found = CellRecord(
            cell=f"{self._count:016d}",
            name=spec.name,
            status=Status.done,
            choices=asdict(spec.choices),
            provenance=Provenance(
                None,
                None,
                host,
                tuple(gpus),
                None,
                "probegrid",
                f"2026-03-01T10:00:{self._count:02d}+00:00",
                seconds,
            ),
            metrics={"n": len(ids), "accuracy": 0.5, "auroc": 0.75, **metrics},
            notes=notes or {},
            plan={"gpus": len(gpus), "parameters": 1e9},
            versions=versions or {},
        )
        tables = {"scores": pa.table(scores), "answers": pa.table(given)}
        if others is not None:
            tables["other_scores"] = pa.table({"example_id": ids, **others})
        record.write(self.folder, found, to_plain(spec.config), tables=tables)

    @property
    def cells(self) -> list[RecordedCell]:
        """All that was recorded, in order."""
        return load_cells(self.folder)
