"""Which way a model was read for a reading, beside what was read: the store keeps the newest.

Knows a report of the engine's and an entry of the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probegrid.inference.outcome import Report
    from probegrid.readings.store import Entry

_FILE = "way.json"


def write_way(entry: Entry, report: Report) -> None:
    """Keep how the model is read from now on."""
    entry.write_json(_FILE, report.as_dict())


def read_way(entry: Entry) -> Mapping[str, Any]:
    """How it was read when the newest of the entry was; empty where that is not known."""
    found = entry.read_json(_FILE)
    return found if isinstance(found, dict) else {}
