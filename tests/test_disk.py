"""A folder is whole or absent, whatever happens to its writer."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from other_user import another_user, only_root

from probegrid.disk import (
    atomic,
    host,
    locked,
    permission_errors,
    refuse_no_folder,
    refuse_unwritable,
    remove_leftovers,
    write_folder,
)
from probegrid.errors import ConfigError, StoreError

OLD = {"a": b"old", "sub/b": b"old"}
NEW = {"a": b"new", "sub/b": b"new"}
HOST = host()

KILLED_IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
from probegrid.disk import write_folder

calls = 0
def fsync_or_wait(descriptor, fsync=os.fsync):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        print("waiting", flush=True)
        signal.pause()
    fsync(descriptor)
os.fsync = fsync_or_wait
write_folder(Path(sys.argv[1]), {"a": b"new", "sub/b": b"new"})
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "cell", OLD | {"gone": b""})
    write_folder(tmp_path / "cell", NEW)
    assert contents(tmp_path / "cell") == NEW
    assert os.listdir(tmp_path) == ["cell"]


@pytest.mark.parametrize("moment", [1, 2, 3, 5])
def test_a_killed_writer_leaves_the_old_folder_and_its_rest_is_removed(
    tmp_path: Path, start_python: Callable[..., subprocess.Popen[str]], moment: int
) -> None:
    write_folder(tmp_path / "cell", OLD)
    writer = start_python(KILLED_IN_THE_MIDDLE, tmp_path / "cell", moment)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "waiting\n"
    renamed = moment == 5  # the fifth flush is that of the parent, after the renaming
    remove_leftovers(tmp_path)
    assert len(os.listdir(tmp_path)) == 2, "what a living writer has is let be"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert contents(tmp_path / "cell") == (NEW if renamed else OLD)
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["cell"]
    assert contents(tmp_path / "cell") == (NEW if renamed else OLD)


def test_a_folder_that_was_only_renamed_away_is_put_back(tmp_path: Path) -> None:
    write_folder(tmp_path / f".cell.old-{HOST}-{_dead_pid()}-01234567", OLD)
    remove_leftovers(tmp_path)
    assert contents(tmp_path / "cell") == OLD


def test_a_leftover_of_another_host_is_removed_after_a_day_only(tmp_path: Path) -> None:
    leftover = tmp_path / ".cell.tmp-other-host-1-01234567"
    write_folder(leftover, OLD)
    remove_leftovers(tmp_path)
    assert leftover.exists()
    yesterday = time.time() - 25 * 3600
    os.utime(leftover, (yesterday, yesterday))
    remove_leftovers(tmp_path)
    assert not leftover.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    write_folder(tmp_path / "cell", OLD)
    calls = iter(range(10))

    def fill_up(descriptor: int) -> None:
        if next(calls) == 1:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fill_up)
    with pytest.raises(StoreError, match=r"^cannot write .*cell: (no space|the disk quota).*run again\.$"):
        write_folder(tmp_path / "cell", NEW)
    assert os.listdir(tmp_path) == ["cell"]
    assert contents(tmp_path / "cell") == OLD


def test_a_truly_full_disk_is_noticed(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        write_folder(tmp_path / "cell", OLD)
        with pytest.raises(StoreError, match="no space is left"):
            write_folder(tmp_path / "cell", {"a": b"x", "b": bytes(1_000_000)})
        assert os.listdir(tmp_path) == ["cell"]
        assert contents(tmp_path / "cell") == OLD
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_many_writers_and_a_reader_never_see_a_mixture(tmp_path: Path) -> None:
    folder = tmp_path / "cell"
    versions = [{str(name): bytes([version]) * 10 for name in range(5)} for version in range(4)]
    write_folder(folder, versions[0])

    def write_often(files: dict[str, bytes]) -> None:
        for _ in range(20):
            write_folder(folder, files)

    writers = [threading.Thread(target=write_often, args=[files]) for files in versions]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        with suppress(FileNotFoundError):
            opened = os.open(folder, os.O_RDONLY)
            names = os.listdir(opened)
            if os.path.samestat(os.fstat(opened), folder.stat()):  # else it was retired meanwhile
                assert len(names) == 5
                seen += 1
            os.close(opened)
    assert seen > 0
    assert contents(folder) in versions
    assert os.listdir(tmp_path) == ["cell"]


def _dead_pid() -> int:
    finished = subprocess.Popen(["true"])
    finished.wait()
    return finished.pid


@only_root
def test_what_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".lock").chmod(0o644)
    tmp_path.chmod(0o777)
    with another_user(tmp_path / "here"):
        refuse_unwritable(tmp_path / "results" / "new")
        with (
            pytest.raises(StoreError, match=r"\.lock cannot be used: no permission, it belongs to root"),
            permission_errors(),
            locked(tmp_path / ".lock"),
        ):
            pass
    tmp_path.chmod(0o755)
    with another_user(tmp_path / "here"):
        with pytest.raises(StoreError, match=r"new cannot be written: no permission, it belongs to root"):
            refuse_unwritable(tmp_path / "results" / "new")
        with (
            pytest.raises(StoreError, match=rf"{tmp_path} cannot be used"),
            permission_errors(),
            locked(tmp_path / ".another"),
        ):
            pass
    assert os.listdir(tmp_path) == [".lock"]


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refuse_no_folder("store_dir", str(tmp_path / "a" / "b"))
    for name, what in {
        "s3://bucket/store": "is an address",
        f"{tmp_path}/file": "is a file",
        f"{tmp_path}/file/store": "is a file",
        f"{tmp_path}/link": "is a link to what is not there",
    }.items():
        with pytest.raises(ConfigError, match=f"store_dir={name}.* {what}"):
            refuse_no_folder("store_dir", name)


def test_two_writers_of_one_number_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    """As two containers do that share a folder and the host's name."""
    with atomic(tmp_path / "state") as first:
        first.write_text("first")
        with atomic(tmp_path / "state") as second:
            second.write_text("sec")
        assert first.read_text() == "first"
    assert (tmp_path / "state").read_text() == "first"
