"""A journal on a disk that loses its power, is full, or fails."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Journal, JournalStopped, JournalWarning, amap
from headrace._core import JournalReader
from headrace.journal import read_records

if TYPE_CHECKING:
    from collections.abc import Iterator

FACTOR = float(os.environ.get("HEADRACE_SOAK", "1"))
DRIVER = Path(__file__).with_name("journal_driver.py")
PAGE = 4096


class Disk:
    """Takes copies of a journal at random moments, as they could be found after a power cut."""

    def __init__(self, journal: Journal, rng: random.Random, share: float) -> None:
        self.journal = journal
        self.delivered: set[int] = set()
        self.cuts: list[tuple[bytes, int, frozenset[int]]] = []
        self._rng = rng
        self._share = share

    def look(self) -> None:
        if self._rng.random() < self._share:
            file = self.journal._file
            assert file is not None
            content = Path(self.journal.path).read_bytes()
            self.cuts.append((content, file.synced, frozenset(self.delivered)))


def ended(path: Path) -> set[Any]:
    """Return the keys of the calls with a result."""
    return {record.key for record in read_records(path) if record.status == "returned"}


def with_holes(rng: random.Random, content: bytes, synced: int) -> bytes:
    """Lose random pages behind the synced length."""
    lost = bytearray(content)
    for page in range(synced // PAGE, len(lost) // PAGE + 1):
        start, end = max(page * PAGE, synced), min((page + 1) * PAGE, len(lost))
        if start < end and rng.random() < 0.5:
            lost[start:end] = bytes(end - start)
    return bytes(lost)


@pytest.mark.loops("asyncio")
async def test_law_18_a_power_cut_loses_nothing_delivered(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    path = tmp_path / "run.journal"
    cuts: list[tuple[bytes, int, frozenset[int]]] = []
    for share, count in ((1.0, 20), (0.1, 1_000)):
        path.unlink(missing_ok=True)
        with Journal(path) as journal:
            disk = Disk(journal, rng, share)

            async def call(number: int, disk: Disk = disk) -> str:
                disk.look()
                await asyncio.sleep(0)
                disk.look()
                return f"{number} " * 20

            async with amap(call, range(count), limit=8, ordered=False, journal=journal) as stream:
                async for result in stream:
                    disk.delivered.add(int(result.split()[0]))
                    disk.look()
            assert len(disk.delivered) == count
        cuts += disk.cuts
    assert len(cuts) > 200
    copy = tmp_path / "cut.journal"
    damaged = 0
    for content, synced, delivered in cuts[:60] + rng.sample(cuts[60:], min(len(cuts) - 60, 200)):
        copy.write_bytes(content[:synced])
        Journal(copy).open().close()
        assert delivered <= ended(copy)
        lost = with_holes(rng, content, synced)
        copy.write_bytes(lost)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Journal(copy).open().close()
        damaged += bool(caught)
        assert all(issubclass(warning.category, JournalWarning) for warning in caught)
        # The reader refuses the damage that the open has skipped.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = {record[3] for record in JournalReader(str(copy)) if record[0] == "end"}
        assert delivered <= found
    assert damaged


def test_a_start_that_a_power_cut_has_torn_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    with Journal(path):
        start = path.read_bytes()
    for length in range(len(start)):
        for content in (start[:length], bytes(length)):
            path.write_bytes(content)
            with Journal(path) as journal:
                assert journal.ended == 0
            # A whole header without its mark is used as it is.
            assert path.read_bytes() in (start, start[:16])


# A full disk.


def run_driver(path: Path, **options: Any) -> list[dict[str, Any]]:
    """Run the driver to its end."""
    given = {"path": str(path), "durability": "disk", "mode": "unordered", "seed": 1, **options}
    command = [sys.executable, str(DRIVER), json.dumps(given)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_full(path: Path, lines: list[dict[str, Any]], count: int) -> None:
    """Check a run that had no room, and resume it."""
    records = list(JournalReader(str(path))) if path.stat().st_size else []
    if any("refused" in line for line in lines):
        # There was no room for the header or the version.
        assert records == []
        assert not any("begun" in line for line in lines)
        return
    assert not [record for record in records if record[0] == "damage"]
    started = {record[3] for record in records if record[0] == "start"}
    recorded = {record[3] for record in records if record[0] == "end"}
    begun = {line["begun"] for line in lines if "begun" in line}
    delivered = {line["result"].removeprefix("done ") for line in lines if "result" in line}
    # Nothing is called without a record of its start, and what was called is delivered.
    assert begun == started
    assert delivered == begun
    (stop,) = (line for line in lines if "unrecorded" in line)
    assert "OSError" in stop["cause"]
    assert Counter(stop["unrecorded"]) == Counter(begun - recorded)


def check_resume(path: Path, count: int, **options: Any) -> None:
    """Resume a run that had no room."""
    before = list(JournalReader(str(path))) if path.exists() and path.stat().st_size else []
    recorded = {record[3] for record in before if record[0] == "end"}
    lines = run_driver(path, count=count, **options)
    assert lines[-1] == {"is_complete": True}
    assert {line["begun"] for line in lines if "begun" in line} == {
        f"key {number}" for number in range(count)
    } - recorded
    assert len({line["result"] for line in lines if "result" in line}) == count


@pytest.mark.skipif(sys.platform == "win32", reason="it has no limits of a process")
@pytest.mark.parametrize("durability", ["disk", "process"])
def test_a_full_disk_stops_the_run(tmp_path: Path, durability: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    path = tmp_path / "run.journal"
    for limit in [
        rng.randrange(1, 60),
        *(rng.randrange(60, 16_000) for _ in range(int(4 * FACTOR))),
    ]:
        path.unlink(missing_ok=True)
        mode = rng.choice(["ordered", "unordered"])
        options = {"durability": durability, "size": 100, "mode": mode}
        lines = run_driver(path, count=100, limit=limit, **options)
        check_full(path, lines, 100)
        check_resume(path, 100, **options)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(directory)]
    done = subprocess.run(mount, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted: {done.stderr.strip()}")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_a_full_file_system_stops_the_run(small_disk: Path) -> None:
    path, ballast = small_disk / "run.journal", small_disk / "ballast"
    ballast.write_bytes(bytes(32 * 1024))
    lines = run_driver(path, count=400, size=300)
    check_full(path, lines, 400)
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    check_resume(path, 400, size=300)


# A failed sync.


class BrokenSync:
    """Replaces the descriptor by which a journal is synced by one that cannot be, and puts it back."""

    def __init__(self, journal: Journal) -> None:
        links = Path("/proc/self/fd")
        fds = [
            int(link.name)
            for link in list(links.iterdir())
            if link.is_symlink() and os.path.realpath(link) == os.path.realpath(journal.path)
        ]
        # The file, and the copy of its descriptor for the syncs, which was made later.
        self.fd = max(fds)
        assert len(fds) == 2

        self.saved = os.dup(self.fd)
        self.ends = os.pipe()
        os.dup2(self.ends[1], self.fd)

    def mend(self) -> None:
        """Put the descriptor back. Idempotent."""
        if self.saved >= 0:
            os.dup2(self.saved, self.fd)
            for fd in (self.saved, *self.ends):
                os.close(fd)
            self.saved = -1


@pytest.mark.skipif(sys.platform != "linux", reason="it finds the descriptor in /proc")
@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("recovers", [True, False])
async def test_a_failed_sync_stops_the_run_for_good(tmp_path: Path, *, recovers: bool) -> None:
    gate = asyncio.Event()
    made: list[str] = []
    journal = Journal(tmp_path / "run.journal")
    journal.__enter__()
    broken = BrokenSync(journal)

    async def call(key: str) -> str:
        made.append(key)
        if key == "b":
            await gate.wait()
        return key

    delivered = []
    stream = amap(call, "abcdef", limit=2, ordered=False, journal=journal)
    with pytest.raises(JournalStopped) as raised:
        async for result in stream:
            delivered.append(result)
            if recovers:
                # A later sync would succeed, and would not put on disk what the failed one has lost.
                broken.mend()
            gate.set()
    await stream.aclose()
    assert isinstance(raised.value.__cause__, OSError)
    assert sorted(delivered) == sorted(made)
    assert Counter(raised.value.unrecorded) == Counter(made)
    assert "b" in made
    broken.mend()
    with pytest.raises(OSError):
        journal.__exit__(None, None, None)
    with Journal(journal.path) as again:
        assert again.in_flight == ("b",)
