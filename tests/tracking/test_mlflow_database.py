"""MLflow's database is whole whatever dies while it is made, and what was there before is kept."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import forked
import postgres_server
import pytest
import send_and_kill
from mlflow import MlflowClient

from probegrid.errors import TrackingError
from probegrid.schema import TrackingConfig
from probegrid.tracking.mlflow_session import open_experiment
from probegrid.tracking.mlflow_sink import send

pytestmark = pytest.mark.slow  # cells of real models, or composed one by one

MOMENTS = int(os.environ.get("PROBEGRID_KILLS", "6"))
MLFLOW_KILLED_IN_ITS_MIGRATIONS = """
import os, signal, sys
from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine
from sqlalchemy import event

last, left = sys.argv[1:], 0
for number, path in enumerate(sys.argv[1:], start=1):
    if not os.fork():
        engine, left = create_sqlalchemy_engine(f"sqlite:///{path}"), 350 * number

        def kill_at_last(*arguments):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(engine, "before_cursor_execute", kill_at_last)
        _initialize_tables(engine)
        os._exit(1)
    assert os.WIFSIGNALED(os.wait()[1])
"""
NO_FLOCK_AND_EIGHT_AT_ONCE = """
import errno, fcntl, os, sys
from pathlib import Path

def no_locks(descriptor, operation):
    raise OSError(errno.ENOLCK, "No locks available")

fcntl.flock = no_locks  # what an NFS without its lock service answers
import mlflow.store.tracking.sqlalchemy_store
from probegrid.schema import TrackingConfig
from probegrid.tracking.mlflow_sink import send

for folder in sys.argv[2:]:
    if os.fork() == 0:
        send(Path(folder), TrackingConfig(uri=sys.argv[1]))
        os._exit(0)
sys.exit(any(os.wait()[1] for _ in sys.argv[2:]))
"""

Start = Callable[..., "subprocess.CompletedProcess[str]"]
WriteCell = Callable[..., Path]


@pytest.fixture
def run_python(start_python: Callable[..., subprocess.Popen[str]]) -> Start:
    """Run Python code to its end in a process of its own."""

    def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        process = start_python(code, *arguments)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(code, process.returncode, out, err)

    return run


def complete_cells(tracking: TrackingConfig) -> list[str]:
    """The cells of the finished runs that have all metrics, sorted."""
    client = MlflowClient(tracking_uri=tracking.uri)
    experiment = client.get_experiment_by_name(tracking.experiment)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert all(run.info.status == "FINISHED" and len(run.data.metrics) == 7 for run in runs)
    return sorted(run.data.tags["probegrid.cell"] for run in runs)


def kill_and_send_again(uri: str, folders: list[Path], seed: int = 0) -> int:
    """Kill the sending of each cell but the first; return how many were killed before their end."""
    program = forked.run(
        [sys.executable, send_and_kill.__file__, str(seed), uri, *map(str, folders)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert program.returncode == 0, program.stderr
    told = json.loads(program.stdout)
    assert told["raised"] == [None] * (len(folders) - 1)
    return int(told["killed"])


@pytest.mark.slow
def test_a_first_cell_killed_at_any_moment_leaves_a_database_that_works(
    tmp_path: Path, write_cell: WriteCell
) -> None:
    folders = [write_cell(cell=f"cell{number}") for number in range(MOMENTS + 1)]
    for number in range(MOMENTS + 1):
        (tmp_path / str(number)).mkdir()
    killed = kill_and_send_again(f"sqlite:///{tmp_path}/{{number}}/mlflow.db", folders)
    assert killed >= MOMENTS // 4
    for number, folder in enumerate(folders):
        tracking = TrackingConfig(uri=f"sqlite:///{tmp_path}/{number}/mlflow.db")
        assert complete_cells(tracking) == [folder.name]
        assert {path.name for path in (tmp_path / str(number)).iterdir()} <= {
            "mlflow.db", ".mlflow.db.lock", "mlruns",
        }  # fmt: skip


@pytest.mark.slow
def test_cells_killed_while_they_are_sent_to_a_server_have_one_run_each(
    server: TrackingConfig, server_uri: str, write_cell: WriteCell
) -> None:
    folders = [write_cell(cell=f"cell{number:02}") for number in range(MOMENTS + 1)]
    killed = kill_and_send_again(server_uri, folders)
    assert killed >= MOMENTS // 4
    assert complete_cells(TrackingConfig(uri=server_uri)) == [folder.name for folder in folders]


@pytest.mark.slow
def test_what_mlflow_left_half_made_is_kept_and_made_again(
    tmp_path: Path, write_cell: WriteCell, run_python: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    """The files are MLflow's own, killed while it made them; two cells were recorded meanwhile."""
    halves = [tmp_path / f"half{number}.db" for number in range(4)]
    assert run_python(MLFLOW_KILLED_IN_ITS_MIGRATIONS, *halves).returncode == 0
    first, second = write_cell(cell="a"), write_cell(cell="b")
    set_aside = 0
    for half in halves:
        tracking = TrackingConfig(uri=f"sqlite:///{half}")
        send(second, tracking)
        said = capfd.readouterr().err
        kept = [*tmp_path.glob(f"{half.name}.half-made-*"), *tmp_path.glob(f"{half.name}.schema-*")]
        kept = [path for path in kept if not path.name.endswith("-journal")]
        if "is half made" in said:
            set_aside += 1
            assert f"it is kept as {kept[0].name}, and made again.\n" in said
            assert f"what is recorded in {first.parent} is sent to it again (2 cells).\n" in said
            assert complete_cells(tracking) == ["a", "b"]
        else:  # killed where MLflow's migrations can go on from
            assert complete_cells(tracking) == ["b"]
        assert len(kept) == 1
    assert set_aside >= 1


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM alembic_version", "DROP TABLE alembic_version", "DROP TABLE spans", "DROP TABLE runs"],
)
def test_a_database_that_lacks_a_part_is_kept_and_made_again(
    sqlite: TrackingConfig, write_cell: WriteCell, tmp_path: Path, statement: str
) -> None:
    send(write_cell(cell="a"), sqlite)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute(statement)
    send(write_cell(cell="b"), sqlite)
    assert complete_cells(sqlite) == ["a", "b"]
    (kept,) = tmp_path.glob("mlflow.db.half-made-*")
    assert kept.stat().st_size > 0


def test_a_damaged_database_is_kept_and_made_again(
    sqlite: TrackingConfig, write_cell: WriteCell, tmp_path: Path
) -> None:
    path = tmp_path / "mlflow.db"
    content = bytearray(path.read_bytes())
    content[100:50_000] = random.Random(0).randbytes(49_900)
    path.write_bytes(content)
    send(write_cell(), sqlite)
    (kept,) = tmp_path.glob("mlflow.db.damaged-*")
    assert kept.read_bytes() == content
    assert len(complete_cells(sqlite)) == 1


def test_a_database_of_an_earlier_mlflow_is_upgraded_on_a_copy(
    tmp_path: Path, write_cell: WriteCell, run_python: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mlflow.db"
    earlier = run_python(
        """
import sys
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import InitialBase, _get_alembic_config, create_sqlalchemy_engine
url = f"sqlite:///{sys.argv[1]}"
engine, config = create_sqlalchemy_engine(url), _get_alembic_config(url)
InitialBase.metadata.create_all(engine)
revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
command.upgrade(config, revisions[8])
print(revisions[8])
""",
        path,
    )
    revision = earlier.stdout.split()[-1]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'mine', 'active')"
        )
    path.chmod(0o640)
    before = path.read_bytes()
    tracking = TrackingConfig(uri=f"sqlite:///{path}")
    send(write_cell(), tracking)
    kept = tmp_path / f"mlflow.db.schema-{revision}"
    assert kept.read_bytes() == before
    assert f"is upgraded; as it was, it is kept as {kept.name}." in capfd.readouterr().err
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    client = MlflowClient(tracking_uri=tracking.uri)
    assert client.get_experiment("7").name == "mine"
    assert len(complete_cells(tracking)) == 1


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "UPDATE alembic_version SET version_num = 'f00dfeed'",
            "made by a newer MLflow .*f00dfeed.*upgrade mlflow",
        ),
        (None, "database of another program .table 'recipes'.*file of its own"),
    ],
)
def test_a_database_that_is_not_ours_to_change_is_refused(
    sqlite: TrackingConfig, write_cell: WriteCell, tmp_path: Path, statement: str | None, message: str
) -> None:
    path = tmp_path / "mlflow.db"
    if statement is None:
        path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement or "CREATE TABLE recipes (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(TrackingError, match=message):
        send(write_cell(), sqlite)
    assert path.read_bytes() == before
    assert {found.name for found in tmp_path.iterdir()} == {"mlflow.db", ".mlflow.db.lock", "results"}


def test_a_full_disk_leaves_nothing_half_made(tmp_path: Path, write_cell: WriteCell) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    tracking = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db")
    try:
        with pytest.raises(TrackingError, match=r"(?i)disk is full|no space"):
            send(write_cell(), tracking)
        assert {path.name for path in folder.iterdir()} <= {".mlflow.db.lock"}
        subprocess.run(["mount", "-o", "remount,size=20m", str(folder)], check=True)
        send(write_cell(), tracking)
        assert len(complete_cells(tracking)) == 1
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_database_that_is_removed_meanwhile_is_not_written_to_any_more(
    sqlite: TrackingConfig, write_cell: WriteCell, tmp_path: Path, migrated: Path
) -> None:
    send(write_cell(cell="a"), sqlite)
    (tmp_path / "mlflow.db").unlink()
    send(write_cell(cell="b"), sqlite)
    assert complete_cells(sqlite) == ["b"]
    shutil.copy(migrated, tmp_path / "other.db")
    (tmp_path / "other.db").replace(tmp_path / "mlflow.db")
    send(write_cell(cell="c"), sqlite)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_a_new_database_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        with open_experiment(TrackingConfig(uri=f"sqlite:///{tmp_path}/shared/mlflow.db")):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "shared" / "mlflow.db").stat().st_mode) == 0o664


def test_eight_processes_share_a_fresh_database_where_there_are_no_locks(
    tmp_path: Path, write_cell: WriteCell, run_python: Start
) -> None:
    folders = [write_cell(cell=f"cell{number}") for number in range(8)]
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    assert run_python(NO_FLOCK_AND_EIGHT_AT_ONCE, uri, *folders).returncode == 0
    assert complete_cells(TrackingConfig(uri=uri)) == [folder.name for folder in folders]


@pytest.fixture(scope="session")
def postgres_uri() -> Iterator[str]:
    """A throwaway cluster."""
    reason = postgres_server.why_not()
    if reason is not None:
        pytest.skip(reason)
    with postgres_server.run_postgres() as uri:
        yield uri


@pytest.fixture
def new_database(postgres_uri: str) -> Callable[[str], str]:
    """Make an empty database in the cluster; return its URI."""
    import psycopg

    def make(name: str) -> str:
        with psycopg.connect(postgres_uri.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return postgres_uri.removesuffix("/postgres") + f"/{name}"

    return make


@pytest.mark.slow
@pytest.mark.server
def test_on_postgres_a_first_cell_killed_at_any_moment_is_sent_by_the_next(
    new_database: Callable[[str], str], write_cell: WriteCell
) -> None:
    folders = [write_cell(cell=f"cell{number:02}") for number in range(MOMENTS + 1)]
    uris = [new_database(f"killed{number}") for number in range(MOMENTS + 1)]
    killed = kill_and_send_again(uris[0].replace("killed0", "killed{number}"), folders)
    assert killed >= MOMENTS // 4
    for uri, folder in zip(uris, folders, strict=True):
        assert complete_cells(TrackingConfig(uri=uri)) == [folder.name]


@pytest.mark.server
def test_on_postgres_eight_processes_share_a_fresh_database(
    new_database: Callable[[str], str], write_cell: WriteCell, run_python: Start
) -> None:
    folders = [write_cell(cell=f"cell{number}", sweep="friday") for number in range(8)]
    uri = new_database("fresh")
    done = run_python(NO_FLOCK_AND_EIGHT_AT_ONCE, uri, *folders)
    assert done.returncode == 0, done.stderr
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("probegrid")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 9  # the sweep's own among them


@pytest.mark.server
def test_on_postgres_a_wrong_password_is_one_sentence_without_it(
    postgres_uri: str, write_cell: WriteCell
) -> None:
    uri = postgres_uri.replace("pro%20be%40grid", "wr%20on%40g")
    with pytest.raises(TrackingError, match="password authentication failed") as raised:
        send(write_cell(), TrackingConfig(uri=uri))
    assert "wr%20on" not in str(raised.value)
    assert "wr on@g" not in str(raised.value)
    assert "\n" not in str(raised.value)
