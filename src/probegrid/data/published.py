"""Published question sets: from the hub, or from a local copy in the publisher's own format.

Knows how the files of a set become tables; what is in their rows is `layouts`'.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from probegrid.data.example import Question, QuestionSet
from probegrid.data.files import data_files_in
from probegrid.data.formats import data_stem, read_files
from probegrid.data.layouts import LAYOUTS, Layout, Style
from probegrid.data.sampling import question_set
from probegrid.data.source import existing, is_local, read_splits, required_path
from probegrid.data.table import Row, Table, chained, from_rows
from probegrid.errors import ConfigError, DataError, closest
from probegrid.schema import QuestionDatasetConfig
from probegrid.schema.ranges import seed_field

_OTHERWISE = (AttributeError, KeyError, TypeError, ValueError)
"""What the reading of a structure raises where there is another one."""


@dataclass
class PublishedConfig(QuestionDatasetConfig):
    """A published set by the name of its layout."""

    layout: str = ""
    """Whose columns the rows have: ``nq_open``, ``gsm8k``, ...; each has its choice of ``dataset``."""
    subset: str | None = None
    """Configuration of the hub dataset, also the name of its folder, or the subject of its files, in a local copy."""
    answerable_only: bool = False
    """Leave out the questions that have no answer; a note says how many."""
    option_seed: int = seed_field()
    """Seed of the order of options, where the set's own order gives the right one away."""
    show_options: bool = True
    """Show the options of a set that can also be asked without (SciQ), which is then judged by ``exact``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layout not in LAYOUTS:
            raise ConfigError(f"dataset.layout={self.layout} is not known; {closest(self.layout, LAYOUTS)}.")


def load(config: PublishedConfig) -> QuestionSet:
    """Read a set.

    Raises:
        DataError: the data is missing, empty, not laid out as the publisher's, or its answers are withheld.
    """
    layout = LAYOUTS[config.layout]
    style = Style(config.option_seed, config.show_options)
    tables = [_expanded(table, layout) for table in _tables(config, layout)]
    left_out: list[str] = []

    def parse(row: Row, row_id: str, where: str) -> Question | None:
        try:
            made = layout.read(row, row_id, where, style)
        except _OTHERWISE as error:
            raise DataError(f"{where} is not laid out as the publisher's: {error}.") from error
        if made is None:
            left_out.append(where)
        return made

    rule = layout.rule if config.show_options or config.layout != "sciq" else "exact"
    found = question_set(config, tables, parse, rule, config.answerable_only)
    notes = [note for note in found.notes if not ("are left out: nothing stands" in note and layout.left_out)]
    if left_out and layout.left_out:
        count = "1 row is" if len(left_out) == 1 else f"{len(left_out)} rows are"
        notes.insert(0, f"{count} left out: {layout.left_out}")
    if layout.shots_in_order:
        found = replace(found, shots=_in_file_order(found.shots, tables[-1]), shots_in_order=True)
    return replace(found, notes=tuple(notes))


def _in_file_order(shots: tuple[Question, ...], table: Table) -> tuple[Question, ...]:
    """Few-shot examples in the order of their file: by default they lie in a drawn one."""
    places = {table.row_id(index): index for index in range(len(table))}
    return tuple(sorted(shots, key=lambda shot: places.get(shot.id, len(places))))


def _tables(config: PublishedConfig, layout: Layout) -> Iterator[Table]:
    """The evaluated split and that of the few-shot examples; the publisher's files of subjects are joined."""
    path = required_path(config)
    if layout.header and is_local(path):
        local = existing(path)
        if local.is_file():
            yield read_files([local], str(local), None, header=layout.header)
            return
        for split in dict.fromkeys((config.split, config.shot_split)):
            yield _subjects(local, split, config.subset, layout)
        return
    yield from read_splits(config, (config.split, config.shot_split), config.subset, layout.unpack)


def _subjects(folder: Path, split: str, subject: str | None, layout: Layout) -> Table:
    """The files ``<split>/<subject>_<split>.csv`` of MMLU's release: of one subject, or of all."""
    place = folder / split if (folder / split).is_dir() else folder / "data" / split
    files = data_files_in(place) if place.is_dir() else []
    chosen = [
        path
        for path in files
        if subject in (None, "all") or data_stem(path.name) in (subject, f"{subject}_{split}")
    ]
    if not files:
        raise DataError(f"{folder} has no folder {split} with files <subject>_{split}.csv.")
    if not chosen:
        names = [data_stem(path.name).removesuffix(f"_{split}") for path in files]
        raise DataError(
            f"{place} has no subject '{subject}'; {closest(str(subject), names)} (dataset.subset)."
        )
    name = f"{folder} ({split})"
    return chained(name, [read_files([path], name, split, header=layout.header) for path in chosen], split)


def _expanded(table: Table, layout: Layout) -> Table:
    if layout.expand is None:
        return table
    rows = []
    for index in range(len(table)):
        try:
            rows += layout.expand(table.row(index))
        except _OTHERWISE as error:
            raise DataError(f"{table.where(index)} is not laid out as the publisher's: {error}.") from error
    return from_rows(table.name, rows, table.split, table.notes)
