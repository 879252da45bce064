"""A program: run a command that is disturbed, and once undisturbed in another folder.

``python disturbed.py HOW SEED TIMES FOLDER COMMAND``; the command is JSON, the words after ``probegrid``. It runs
undisturbed in ``FOLDER/whole``, and in ``FOLDER/again<n>`` as HOW says:

- ``kill``: until it was killed so often at random moments and started again; a run that ends before its moment begins
  another such folder.
- ``fill``: until its disk was filled so often at random moments, with room made again after each.
- ``together``: so many at once, in one folder.

At last it runs once more in each folder. Prints the folders as JSON. Imports, which take longer than what is disturbed,
are made once and children forked; nothing is computed before, for threads are not forked.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fork_server
import forked


def main() -> None:
    """Run, disturb, and run on."""
    how, seed, times, root, words = sys.argv[1:]
    folder, command, generator = Path(root), json.loads(words), random.Random(int(seed))
    fork_server.import_all((*fork_server.COMMON, *fork_server.HEAVY))
    whole = fresh(folder, "whole")
    started = time.monotonic()
    assert ended(start(whole, command)) == 0, (whole / "log").read_text()
    longest_s = time.monotonic() - started
    folders = [fresh(folder, "again0")]
    if how == "together":
        children = [start(folders[0], command) for _ in range(int(times))]
        assert [ended(child) for child in children] == [0] * len(children), (folders[0] / "log").read_text()
    disturbed = 0
    while how != "together" and disturbed < int(times):
        child = start(folders[-1], command)
        status = ended_before(child, generator.uniform(0, longest_s))
        if status is not None:
            assert status == 0, (folders[-1] / "log").read_text()
            folders.append(fresh(folder, f"again{len(folders)}"))
            continue
        disturbed += 1
        if how == "kill":
            os.killpg(child, signal.SIGKILL)
            ended(child)
        else:
            with filled(folder):
                assert ended(child) in (0, 1, 2), (folders[-1] / "log").read_text()
    for each in folders:
        assert ended(start(each, command)) == 0, (each / "log").read_text()
    print(json.dumps([each.name for each in folders]))


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Take all room that the disk of a folder has."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream, suppress(OSError):
        while stream.write(bytes(1 << 20)):
            pass
    try:
        yield
    finally:
        filler.unlink()


def fresh(folder: Path, name: str) -> Path:
    """A folder to run in, with what the command is to find there."""
    made = folder / name
    if (folder / "before").exists():
        shutil.copytree(folder / "before", made)
    else:
        made.mkdir()
    return made


def start(folder: Path, command: list[str]) -> int:
    """Run the command in a child; return its process."""
    child = os.fork()
    if child == 0:
        if "-m" in command:  # whose jobs are processes of their own
            forked.fork_what_is_started(fork_server.server_of_its_own())
        os.chdir(folder)
        os.setsid()
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os._exit(status_of(command))
    return child


def ended(child: int) -> int:
    """Wait for a child; its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ended_before(child: int, moment_s: float) -> int | None:
    """The exit status of a child that ends before a moment; None for one that does not."""
    deadline = time.monotonic() + moment_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def status_of(command: list[str]) -> int:
    """Do as the command does; its exit status."""
    from probegrid.cli import main as probegrid

    sys.argv = ["probegrid", *command]
    try:
        probegrid()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:  # noqa: BLE001  # a traceback is what the test is to see
        import traceback

        traceback.print_exc()
        return 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    main()
