"""Datasets of the Hugging Face hub as tables.

Knows ``datasets.load_dataset`` and what it raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from probegrid.data.files import unknown_split
from probegrid.data.table import Table, from_arrow
from probegrid.errors import DataError


def read_splits(path: str, splits: Iterable[str], subset: str | None = None) -> Iterator[Table]:
    """Read splits of a hub dataset one after another, from the cache where it is cached.

    Raises:
        DataError: the hub cannot be reached, has no such dataset, or the dataset has no such subset or split.
    """
    import datasets

    try:
        loaded = datasets.load_dataset(path, subset)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(
            f"the hub has no dataset '{path}', or it is private or gated (then log in with "
            f"`hf auth login`), and there is no such local file or folder; {_LOCAL_COPY}."
        ) from error
    except ConnectionError as error:
        raise DataError(
            f"the hub dataset '{path}' is not in the cache and the hub cannot be reached (no network, "
            f"or HF_HUB_OFFLINE is set); {_LOCAL_COPY}."
        ) from error
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        chosen = f" with the subset '{subset}'" if subset else ""
        raise DataError(
            f"the hub dataset '{path}' cannot be read{chosen}: {reason}; {_LOCAL_COPY}."
        ) from error
    for split in splits:
        if split not in loaded:
            raise unknown_split(f"the hub dataset '{path}'", split, list(loaded))
        yield from_arrow(f"{path} ({split})", loaded[split].with_format("arrow")[:], split)


_LOCAL_COPY = "a local copy is read with dataset.path=<file or folder>"
