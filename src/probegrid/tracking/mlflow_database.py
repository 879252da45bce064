"""The SQLite file that MLflow writes to: born whole, made again where it is broken, upgraded on a copy.

MLflow makes its tables in some fifty migrations that SQLite does not undo: a process killed among them, or a disk that
fills up, leaves a file that no MLflow opens any more. Here they all run in a hidden folder beside the file, and the
outcome is renamed into place. What was there before is never deleted: it is kept under a name that says why.

Whoever calls `make_ready` holds the file's lock. Imports mlflow and its database packages, when called.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from probegrid.disk import remove_leftovers, sibling, sync_file
from probegrid.errors import TrackingError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory
    from sqlalchemy.engine import Engine

_WAIT_S = 20
"""How long SQLite waits for another process that writes."""
_COMPANIONS = ("-journal", "-wal", "-shm")
"""What SQLite keeps beside a file; it would be applied to whatever file stands there next."""


@dataclass(frozen=True)
class _Found:
    """What a database holds."""

    revision: str | None
    """The last migration that ran; None where none is noted."""
    tables: frozenset[str]
    n_runs: int


@dataclass(frozen=True)
class Replaced:
    """That another file stands where a database stood."""

    sentence: str
    """What was the matter, and where the old one is."""
    is_empty: bool
    """Whether the new one lacks what had been sent to the old one."""


def make_ready(path: Path) -> Replaced | None:
    """Make ``path`` a database of the installed MLflow's: a new one, an upgraded one, or the one that is there.

    Returns:
        What happened, where a file that was there had to give way; None otherwise.

    Raises:
        TrackingError: the file is no database, holds another program's tables, or is of a newer MLflow.
        OSError, SQLAlchemyError: the disk is full or cannot be written; what was there still is.
    """
    _notice_replacement(path)
    remove_leftovers(path.parent)
    if not path.exists() or path.stat().st_size == 0:
        with _building(path) as fresh:
            _migrate(fresh)
            _place(fresh, path)
        return None
    try:
        found = _look(path)
    except sqlite3.DatabaseError as error:
        return _replace_damaged(path, error)
    _refuse_foreign(path, found)
    if _is_whole(found):
        return None
    return _replace_outdated(path, found)


def sqlite_uri(path: Path, like: str = "") -> str:
    """The URI of a SQLite file, the same from every folder, with the query of another.

    Its letters stand as they are: MLflow makes the folder that a URI names to the letter, ``jos%C3%A9`` for ``josé``,
    before SQLAlchemy reads what that stands for.
    """
    query = like.partition("?")[2]
    written = re.sub("%(?=[0-9a-fA-F]{2})", "%25", str(path)).replace("?", "%3F")
    return f"sqlite:///{written}{query and f'?{query}'}"


_seen: dict[Path, tuple[int, int]] = {}
"""Device and inode of each file as this process last found it."""


def _notice_replacement(path: Path) -> None:
    """Close what is open of a file that somebody else has deleted or replaced: what is written there is lost."""
    try:
        status = path.stat()
        now = (status.st_dev, status.st_ino)
    except FileNotFoundError:
        now = (0, 0)
    if _seen.get(path, now) != now:
        _forget_connections(path)
    _seen[path] = now


def _look(path: Path) -> _Found:
    """Read what a database holds; what a killed writer left half done is rolled back by SQLite before."""
    with closing(sqlite3.connect(path, timeout=_WAIT_S)) as connection:
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        revision = n_runs = None
        if "alembic_version" in tables:
            revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        if "runs" in tables:
            n_runs = connection.execute("SELECT count(*) FROM runs").fetchone()
        own = frozenset(name for name in tables if not name.startswith(("sqlite_", "alembic_")))
        return _Found(revision and revision[0], own, n_runs[0] if n_runs else 0)


def _is_whole(found: _Found) -> bool:
    from mlflow.store.db.base_sql_model import Base

    return found.revision == _migrations().get_current_head() and found.tables >= set(Base.metadata.tables)


def _refuse_foreign(path: Path, found: _Found) -> None:
    """Refuse what must not be touched: another program's database, and one of a newer MLflow.

    Raises:
        TrackingError: it is one of these.
    """
    import mlflow
    from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

    if found.tables and not found.tables & set(InitialBase.metadata.tables):
        raise TrackingError(
            f"{path} is a database of another program (table {min(found.tables)!r}); "
            "give MLflow a file of its own in tracking.uri."
        )
    if found.revision is not None and not _is_known(found.revision):
        raise TrackingError(
            f"{path} was made by a newer MLflow than the installed {mlflow.__version__} (schema {found.revision}); "
            "upgrade mlflow, or give another file in tracking.uri."
        )


def _is_known(revision: str) -> bool:
    from alembic.util.exc import CommandError

    try:
        return _migrations().get_revision(revision) is not None
    except CommandError:
        return False


@functools.cache
def _migrations() -> ScriptDirectory:
    """The installed MLflow's, as they follow one another: asked for something, it runs some fifty files, once."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    return ScriptDirectory.from_config(_get_alembic_config(""))


def _replace_outdated(path: Path, found: _Found) -> Replaced:
    """Put an upgraded copy in the place of a database; a fresh one where it cannot be upgraded."""
    from alembic.util.exc import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    # writers wait from the copy to the renaming, so that none writes into what is set aside
    with (
        closing(sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)) as held,
        _building(path) as copy,
    ):
        held.execute("BEGIN IMMEDIATE")
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        try:
            _migrate(copy, is_new=found.revision is None)
            is_upgraded = _is_whole(_look(copy))
        except (CommandError, SQLAlchemyError) as error:
            if _is_disk_error(error):
                raise
            is_upgraded = False
        if is_upgraded:
            aside = _place(copy, path, keep_as=f"schema-{found.revision or 'none'}")
            return Replaced(
                f"{path} was of an earlier MLflow and is upgraded; as it was, it is kept as {aside}.",
                is_empty=False,
            )
    return _replace_broken(path, "half-made", _contents(found))


def _contents(found: _Found) -> str:
    return f"is half made (a process was killed, or the disk full, while MLflow made it; it holds {found.n_runs} runs)"


def _replace_damaged(path: Path, error: sqlite3.DatabaseError) -> Replaced:
    """Put a fresh database in the place of one that SQLite cannot read.

    Raises:
        TrackingError: the file is not even a database, or another process is at work on it.
    """
    if not _starts_as_database(path):
        raise TrackingError(f"{path}: {error}; give MLflow a file of its own in tracking.uri.") from error
    if isinstance(error, sqlite3.OperationalError):  # locked, unreadable: nothing is known of what it holds
        raise TrackingError(_not_opened(path, error)) from error
    return _replace_broken(path, "damaged", f"is damaged ({error})")


def _not_opened(path: Path, error: sqlite3.OperationalError) -> str:
    if "locked" in str(error):
        return (
            f"{path} is locked: another program writes to it, or its file system has no locks, which SQLite needs; "
            "then give a file on a local disk, or a server (http://host:5000), in tracking.uri."
        )
    return f"{path} cannot be opened: {error}."


def _replace_broken(path: Path, what: str, why: str) -> Replaced:
    with _building(path) as fresh:
        _migrate(fresh)
        aside = _place(fresh, path, keep_as=f"{what}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    return Replaced(f"{path} {why}: it is kept as {aside}, and made again.", is_empty=True)


@contextmanager
def _building(path: Path) -> Iterator[Path]:
    """Give a path in a hidden folder of its own beside ``path``; the folder goes whatever happens."""
    folder = sibling(path, "tmp")
    folder.mkdir()
    try:
        (folder / path.name).touch()  # by the umask; SQLite would give nobody else more than to read
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _migrate(path: Path, *, is_new: bool = True) -> None:
    """Run MLflow's migrations, all of them for a new database.

    Raises:
        SQLAlchemyError, alembic.util.CommandError: a migration does not work on what is there.
    """
    from mlflow.store.db.utils import _initialize_tables, _upgrade_db, create_sqlalchemy_engine
    from sqlalchemy import event

    engine: Engine = create_sqlalchemy_engine(sqlite_uri(path))
    # nothing of it counts before it is whole: one flush at the end takes a quarter of the time
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    try:
        if is_new:
            _initialize_tables(engine)
        else:
            _upgrade_db(engine)
    finally:
        engine.dispose()


def _place(built: Path, path: Path, keep_as: str | None = None) -> str | None:
    """Rename a database into place; what is there gets the name ``<path>.<keep_as>``, which is returned."""
    sync_file(built)
    aside = None
    if keep_as is not None:
        built.chmod(path.stat().st_mode & 0o777)
        aside = _unused(path.with_name(f"{path.name}.{keep_as}"))
        for companion in _COMPANIONS:
            with suppress(FileNotFoundError):
                path.with_name(path.name + companion).rename(aside.with_name(aside.name + companion))
        _link(path, aside)
    built.replace(path)
    _notice_replacement(path)
    return None if aside is None else aside.name


def _unused(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _link(path: Path, aside: Path) -> None:
    """Give a file a second name, so that the first is never free; where links are unknown, the other name alone."""
    try:
        os.link(path, aside)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        path.rename(aside)


def _starts_as_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _is_disk_error(error: Exception) -> bool:
    return any(
        phrase in str(error) for phrase in ("disk is full", "disk I/O error", "unable to open", "readonly")
    )


def _forget_connections(path: Path) -> None:
    """Close what this process has open of the file that was there: MLflow keeps connections by URI."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for engine in getattr(SqlAlchemyStore, "_engine_map", {}).values():
        if engine.url.database and Path(engine.url.database).absolute() == path:
            engine.dispose()
