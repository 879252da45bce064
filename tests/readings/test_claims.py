"""Claims among real processes: one holder at a time, passed on where it is dead or silent, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from probegrid.progress import Progress
from probegrid.readings import claims
from probegrid.readings.batches import Batch, Look, evened_out, lay_out_once, work_through
from probegrid.readings.claims import Claims
from probegrid.readings.store import Entry

Start = Callable[..., "subprocess.Popen[str]"]

HOLD = """
import sys, time
from pathlib import Path
from probegrid.readings.claims import Claims
with Claims(Path(sys.argv[1])) as claims:
    print(claims.take("batch"), flush=True)
    time.sleep(600)
"""
WORK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_claims import read_all
read_all(Path(sys.argv[1]), sys.argv[2])
"""
N = 24


def held_files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob(".*"))


def write_rows(entry: Entry, digests: Sequence[str]) -> None:
    values = {"prompt": digests, "seconds": [0.0] * len(digests), "read_at": [time.time()] * len(digests)}
    entry.write_part(pa.table(values))


def read_all(store: Path, reader: str) -> None:
    """Read N rows in batches of two, and leave a line for each in a log; none is read before all three hold one."""
    entry, digests = Entry(store, "rows", {"of": "a test"}), [str(number) for number in range(N)]
    index_of = {digest: index for index, digest in enumerate(digests)}
    look = Look(entry, index_of, None)
    missing = set(range(N)) - look()
    batches = lay_out_once(
        entry, digests, missing, lambda indices: [list(indices[i : i + 2]) for i in range(0, len(indices), 2)]
    )

    def do(batch: Sequence[int]) -> None:
        (store / f"reading-{reader}").touch()
        while len(list(store.glob("reading-*"))) < 3:  # the first would be done before the others get a core
            time.sleep(0.01)
        time.sleep(0.05)
        write_rows(entry, [digests[index] for index in batch])
        with (store / "log.txt").open("a") as log:
            log.write("".join(f"{reader} {index}\n" for index in batch))

    with Progress() as progress:
        progress.start("rows", total=N, done=N - len(missing))
        work_through(entry, batches, do, look, progress)


def done_by(store: Path) -> list[tuple[str, int]]:
    lines = (store / "log.txt").read_text().splitlines()
    return [(line.split()[0], int(line.split()[1])) for line in lines]


def test_one_holds_a_claim_until_it_is_let_go(tmp_path: Path) -> None:
    with Claims(tmp_path) as first, Claims(tmp_path) as second:
        assert first.take("batch")
        assert not second.take("batch")
        assert second.take("another")
        assert second.is_held("batch")
        first.release("batch")
        assert second.take("batch")
        first.release("batch")  # no longer its own
        assert not first.take("batch")
    assert held_files(tmp_path) == []


def test_a_dead_process_of_this_machine_holds_nothing(tmp_path: Path, start_python: Start) -> None:
    holder = start_python(HOLD, tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    with Claims(tmp_path) as mine:
        assert not mine.take("batch")
        holder.kill()  # and a zombie until it is waited for
        deadline = time.monotonic() + 10
        while not mine.take("batch"):
            assert time.monotonic() < deadline
        holder.communicate()
    assert held_files(tmp_path) == []


def test_what_an_error_left_lying_in_this_process_is_taken_again(tmp_path: Path) -> None:
    lost = Claims(tmp_path)
    assert lost.take("batch")
    claims._own_tokens.clear()
    with Claims(tmp_path) as mine:
        assert mine.take("batch")
    lost.__exit__(None, None, None)


@pytest.mark.parametrize("content", ["", "[1]", '{"machine": "another", "pid": 1, "token": "x"}'])
def test_a_holder_elsewhere_is_gone_once_it_is_silent_whatever_its_clock(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "SILENT_S", 0.6)
    file = tmp_path / ".batch.claim"
    file.write_text(content)
    with Claims(tmp_path) as mine:
        for clock in (0.0, time.time() - 10_000, time.time() + 10_000, 5.0):  # touched again and again
            os.utime(file, (clock, clock))
            assert not mine.take("batch")
            time.sleep(0.4)
        time.sleep(0.4)
        assert mine.take("batch")
        assert json.loads(file.read_text())["pid"] == os.getpid()


def test_a_holder_touches_its_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 0.05)
    with Claims(tmp_path) as mine:
        mine.take("batch")
        os.utime(tmp_path / ".batch.claim", (0, 0))
        deadline = time.monotonic() + 30
        while (tmp_path / ".batch.claim").stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_of_many_who_find_a_dead_claim_one_gets_it(tmp_path: Path, start_python: Start) -> None:
    dead = {"machine": claims._machine(), "pid": 2**22 + 1, "born": 0.0, "token": "x"}
    (tmp_path / ".batch.claim").write_text(json.dumps(dead))
    takers = [start_python(HOLD, tmp_path) for _ in range(4)]
    took = [taker.stdout.readline() for taker in takers if taker.stdout is not None]
    for taker in takers:
        taker.kill()
        taker.communicate()
    assert Counter(took) == {"True\n": 1, "False\n": 3}


def test_processes_share_a_reading_and_one_that_is_killed_loses_and_doubles_nothing(
    tmp_path: Path, start_python: Start
) -> None:
    readers = [start_python(WORK, tmp_path, name, Path(__file__).parent) for name in "abc"]
    deadline = time.monotonic() + 60
    while not (tmp_path / "log.txt").exists() or len(done_by(tmp_path)) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    readers[0].send_signal(signal.SIGKILL)
    for reader in readers:
        reader.communicate(timeout=60)
    assert [reader.returncode for reader in readers] == [-signal.SIGKILL, 0, 0]
    done = done_by(tmp_path)
    rows = [
        row
        for table in Entry(tmp_path, "rows", {"of": "a test"}).read_parts(["prompt"])
        for row in table.to_pylist()
    ]
    assert sorted(int(row["prompt"]) for row in rows) == list(range(N))
    assert len({number for _, number in done}) >= N - 2  # killed between a part and its line
    assert max(Counter(number for _, number in done).values()) == 1
    assert len({name for name, _ in done}) >= 2


def test_what_another_did_since_is_not_done_again_and_is_counted(tmp_path: Path) -> None:
    entry, digests = Entry(tmp_path, "rows", {"of": "a test"}), [str(number) for number in range(4)]
    look = Look(entry, {digest: index for index, digest in enumerate(digests)}, None)
    did: list[int] = []

    def do(batch: Sequence[int]) -> None:
        did.extend(batch)
        write_rows(entry, [digests[index] for index in batch])
        if 0 in batch:
            write_rows(entry, digests[2:])  # by somebody else

    class Counting(Progress):
        counted = 0

        def advance(self, examples: int, *, tokens: int = 0) -> None:
            self.counted += examples

    with Counting() as progress:
        work_through(entry, [Batch("a", (0, 1)), Batch("b", (2, 3))], do, look, progress)
    assert did == [0, 1]
    assert progress.counted == 2  # its own are counted by who does them


def test_whoever_is_first_lays_out_for_all(tmp_path: Path) -> None:
    entry, digests = Entry(tmp_path, "rows", {"of": "a test"}), list("abcd")
    first = lay_out_once(entry, digests, {0, 1, 2, 3}, lambda indices: [list(indices)], readers=2)
    assert [batch.indices for batch in first] == [(0, 1), (2, 3)]
    again = lay_out_once(entry, digests, {1, 2, 3}, lambda indices: [[index] for index in indices])
    assert [batch.indices for batch in again] == [(1,), (2, 3)]
    assert [batch.name for batch in again] == [batch.name for batch in first]


@pytest.mark.parametrize(
    ("sizes", "readers"), [([400], 2), ([512] * 3, 2), ([512] * 7 + [416], 3), ([3], 8), ([], 2)]
)
def test_each_reader_gets_as_much_as_the_others(sizes: list[int], readers: int) -> None:
    edges = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    batches = [list(range(start, start + size)) for start, size in zip(edges, sizes, strict=False)]
    found = evened_out(batches, readers)
    assert [index for batch in found for index in batch] == list(range(sum(sizes)))
    shares = [0] * readers
    for batch in found:  # whoever is free takes the next
        shares[shares.index(min(shares))] += len(batch)
    assert max(shares) <= -(-sum(sizes) // readers) * 1.1 + 1


def test_many_batches_are_left_as_they_are_laid_out() -> None:
    batches = [[number] for number in range(33)]
    assert evened_out(batches, 2) == batches
    assert evened_out([[0], [1]], 2) == [[0], [1]]
