"""The record of a cell: what ``result.json`` says, and the folder it stands in.

``results_dir/<cell key>/`` holds ``result.json``, ``config.yaml``, the tables (parquet), ``figures/`` and
whatever else the probe leaves. The folder is written whole or not at all, and nothing secret goes into it.
``result.json`` holds a checksum of every file, its own included (`integrity` looks at the others).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from probegrid.disk import lies_in, remove_leftovers, unreadable, write_folder
from probegrid.errors import StoreError
from probegrid.tracking.provenance import Provenance
from probegrid.tracking.redaction import redact

if TYPE_CHECKING:
    import pyarrow

RESULT_FILE = "result.json"
CONFIG_FILE = "config.yaml"
_KEY = re.compile(r"[0-9a-f]{16}")
_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DamagedRecord(StoreError):
    """A record that is there and is not as it was written."""


class Status(StrEnum):
    """How a cell ended."""

    done = "done"
    failed = "failed"


@dataclass(frozen=True)
class CellError:
    """Why a cell failed."""

    type: str
    """Name of the exception's class."""
    message: str
    """What it said."""
    traceback: str
    """Its traceback, as Python prints it."""


@dataclass(frozen=True)
class CellRecord:
    """What is known of a cell after it ran."""

    cell: str
    """Key of the cell, also the name of its folder."""
    name: str
    """Name for people: ``model-quantization-dataset-probe``."""
    status: Status
    """How it ended."""
    choices: Mapping[str, str]
    """Name chosen in each group, as typed."""
    provenance: Provenance
    """Who made it, with what, where and when."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Value of each metric; units and directions are in ``probegrid.evaluation.metrics``."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """By metric name, why its value is not a number or needs care; under ``examples`` a look at them, line by line."""
    steps: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    """Metrics with a course: (step, value) pairs; a step is an epoch or a layer."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    """The plan, as plain values."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of Python and the packages."""
    error: CellError | None = None
    """Why it failed; None if it did not."""
    sweep: str | None = None
    """Id of the sweep it belongs to, if any."""
    readers: int = 1
    """Processes that shared its readings: seconds and memory are of all together, rates of each."""
    engine: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By reading, which way the model was read (``used``), on how many ``prompts`` it was tried against the model's own
    forward pass of one row, their ``distance`` and what was ``allowed``, and why faster ways were ``passed_over``."""
    checksums: Mapping[str, str] = field(default_factory=dict, compare=False)
    """SHA-256 of each file of the folder as it was written; that of ``result.json``, of all that it says besides."""

    def to_json(self, checksums: Mapping[str, str] | None = None) -> str:
        """Return the text of ``result.json``, secrets removed; not-a-number is written ``NaN``.

        Args:
            checksums: of the other files.
        """
        values = asdict(self) | {"checksums": dict(checksums or {})}
        # numbers under names of ours, ``first_token_entropy_auroc`` among them: no name makes a secret of them
        open_values = {name: values[name] for name in ("cell", "metrics", "steps", "checksums")}
        notes = {name: redact(note) for name, note in values["notes"].items()}
        shown = json.loads(json.dumps(redact(values) | open_values | {"notes": notes}))
        shown["checksums"][RESULT_FILE] = _own_checksum(shown)
        return json.dumps(shown, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> CellRecord:
        """Read the text of ``result.json``.

        Raises:
            AttributeError, KeyError, RecursionError, TypeError, ValueError: the text is not a record, or was changed.
        """
        read = json.loads(text)
        checksums = read.setdefault("checksums", {})  # a record from before there were any
        if RESULT_FILE in checksums and checksums[RESULT_FILE] != _own_checksum(read):
            raise ValueError("its checksum is another one")
        read.setdefault("engine", {})  # a record from before anything was tried
        values = {part.name: read[part.name] for part in fields(cls)}
        origin = values["provenance"]
        values["status"] = Status(values["status"])
        values["provenance"] = Provenance(**origin | {"gpus": tuple(origin["gpus"])})
        values["steps"] = {
            name: [(int(step), value) for step, value in pairs] for name, pairs in values["steps"].items()
        }
        values["error"] = values["error"] and CellError(**values["error"])
        return cls(**values)


def write(
    results_dir: Path,
    record: CellRecord,
    config: Mapping[str, Any],
    *,
    tables: Mapping[str, pyarrow.Table] | None = None,
    figures: Mapping[str, bytes] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write the folder of a cell whole or not at all, replacing an earlier record of the same cell.

    Args:
        results_dir: folder of the recorded cells; made where it does not exist.
        record: becomes ``result.json``, secrets removed.
        config: the resolved config as plain nested values; becomes ``config.yaml``, secrets removed.
        tables: by name, written as ``<name>.parquet``.
        figures: images by the names of their files, ``roc.png``.
        files: by relative path, anything else; written as given, so text must have gone through `redact`.

    Returns:
        The folder.

    Raises:
        StoreError: the disk is full or refuses to be written; an earlier record still stands.
    """
    folder = results_dir / record.cell
    contents = {CONFIG_FILE: yaml.safe_dump(redact(config), sort_keys=False, allow_unicode=True).encode()}
    contents |= {f"{name}.parquet": _parquet(table) for name, table in (tables or {}).items()}
    contents |= {f"figures/{name}": image for name, image in (figures or {}).items()}
    contents |= dict(files or {})
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
    remove_leftovers(results_dir)
    write_folder(folder, contents | {RESULT_FILE: record.to_json(checksums).encode()})
    return folder


def read(results_dir: Path, key: str) -> CellRecord | None:
    """Return the record of a cell, or None if there is none.

    Raises:
        DamagedRecord: there is one and it is not as it was written.
        StoreError: there is one and it cannot be read.
    """
    path = results_dir / key / RESULT_FILE
    try:
        return CellRecord.from_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise _damaged(path) from error


def read_config(results_dir: Path, key: str) -> dict[str, Any]:
    """Return the resolved config that a recorded cell was run with, secrets removed.

    Raises:
        DamagedRecord: it is not as it was written.
        StoreError: it is missing or cannot be read.
    """
    path = results_dir / key / CONFIG_FILE
    try:
        config = yaml.load(path.read_bytes(), _SafeLoader)  # noqa: S506  # the safe one, in C where there is one
    except OSError as error:
        raise unreadable(path, error) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(config, dict):
        raise _damaged(path)
    return config


def refuse_copy(folder: Path, record: CellRecord) -> None:
    """Refuse a folder that was copied or renamed where its cell is recorded under its own name beside it.

    Raises:
        StoreError: it is such a folder.
    """
    if folder.name != record.cell and (folder.parent / record.cell / RESULT_FILE).exists():
        raise StoreError(
            f"{folder} is another record of the cell {record.cell}, which stands beside it under its own name; move it "
            f"out of {folder.parent}."
        )


def is_done(results_dir: Path, key: str) -> bool:
    """Whether a cell is recorded as done; a failed one is not.

    Raises:
        StoreError: its record is damaged.
    """
    found = read(results_dir, key)
    return found is not None and found.status is Status.done


def cell_folders(results_dir: Path, *names: str) -> list[Path]:
    """The folders that hold a file of one of these names, sorted.

    A cell's folder that may not be looked into is among them: what is left shall not be taken for all there is.

    Raises:
        StoreError: ``results_dir`` may not be read.
    """
    try:
        folders = sorted(folder for folder in results_dir.iterdir() if not folder.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(results_dir, error) from error
    return [folder for folder in folders if any(_may_be_there(folder / name) for name in names)]


def _may_be_there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:
        return _KEY.fullmatch(file.parent.name) is not None  # no ``lost+found``


def recorded_keys(results_dir: Path) -> list[str]:
    """Return the keys of all recorded cells, done or failed, sorted; those that may not be read are among them.

    Raises:
        StoreError: ``results_dir`` may not be read.
    """
    return [folder.name for folder in cell_folders(results_dir, RESULT_FILE)]


def own_keys(results_dir: Path) -> list[str]:
    """Return the keys of the recorded cells that lie in the folder itself: a link may lead to what must not be sent."""
    return [key for key in recorded_keys(results_dir) if lies_in(results_dir / key, results_dir)]


def _damaged(path: Path) -> DamagedRecord:
    return DamagedRecord(f"{path} is damaged; remove the folder {path.parent} and run the cell again.")


def _own_checksum(values: Mapping[str, Any]) -> str:
    """SHA-256 of what ``result.json`` says, but for this very number: spaces and line ends do not count."""
    others = {name: digest for name, digest in values["checksums"].items() if name != RESULT_FILE}
    text = json.dumps({**values, "checksums": others}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _parquet(table: pyarrow.Table) -> bytes:
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()
