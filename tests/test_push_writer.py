"""`SinkWriterObj`: write items to a file, one a line."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    ClosedError,
    ForkError,
    PushForkObj,
    PushMapObj,
    SinkCollectObj,
    SinkWriterObj,
    SourceIterObj,
    SourceLinesObj,
    WouldBlock,
)
from tests.support import eventually, wrong, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import Callable

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full and pipes")


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def test_each_item_is_a_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    items = [1, "ä\n☃", None, {"a": [1.5, True], "b": "x"}, [], ""]
    sink = SinkWriterObj[Any](path)
    for item in items:
        assert not (await sink.next(item)).done
    await sink.return_()
    text = path.read_text(encoding="utf-8")
    assert text.splitlines()[3] == '{"a":[1.5,true],"b":"x"}'
    assert "ä\\n☃" in text
    assert text.endswith("\n")
    assert [json.loads(line) for line in text.splitlines()] == items


async def test_each_str_is_a_line_of_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "out.txt")
    sink = SinkWriterObj[Any](path, format="text")
    await sink.next("ä")
    with pytest.raises(TypeError, match=r"must be a str with format=\"text\", got 3 \(int\)"):
        await sink.next(3)
    sink.next_nowait("")
    await sink.return_()
    assert (tmp_path / "out.txt").read_bytes() == "ä\n\n".encode()
    assert (sink.path, sink.format) == (path, "text")


@pytest.mark.parametrize("bad", [float("nan"), object(), {1: {2}}, "\ud800"])
async def test_law_3_unencodable_item_costs_only_itself(bad: Any, tmp_path: Path) -> None:
    path = tmp_path / "out"
    sink = SinkWriterObj[Any](path)
    await sink.next(1)
    for _ in range(2):
        with pytest.raises((TypeError, ValueError)):
            await sink.next(bad)
        with pytest.raises((TypeError, ValueError)):
            sink.next_nowait(bad)
    await sink.next(2)
    await sink.return_()
    assert path.read_text() == "1\n2\n"


async def test_law_1_file_is_opened_by_first_push_or_end(
    tmp_path: Path,
) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    first.write_text("old\n")
    sink = SinkWriterObj[int](first)
    await yield_to_loop(3)
    assert first.read_text() == "old\n"
    await sink.return_()
    assert first.read_text() == ""
    await SinkWriterObj[int](second).return_()
    assert second.read_text() == ""
    await SinkWriterObj[int](third).throw(KeyError("x"))
    assert not third.exists()


async def test_append_keeps_existing_lines(tmp_path: Path) -> None:
    path = tmp_path / "out"
    for append in (False, True, True, False):
        await SourceIterObj([1, 2]).drain_to(SinkWriterObj(path, append=append))
    assert path.read_text() == "1\n2\n"
    await SourceIterObj([3]).drain_to(SinkWriterObj(path, append=True))
    assert path.read_text() == "1\n2\n3\n"


async def test_many_lines_are_written_in_order(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    path = tmp_path / "out"
    items = ["x" * rng.choice([0, 1, 10, 1000]) + str(n) for n in range(5000)]
    sink = SinkWriterObj[str](path, format="text", maxsize=rng.choice([1, 100, 10_000, 1 << 20]))
    top = PushMapObj[str, str](PushForkObj([sink, SinkCollectObj[str]()]), str)
    for item in items:
        await top.next(item)
    await top.return_()
    assert [line.rstrip("\n") async for line in SourceLinesObj(path)] == items
    with pytest.raises(ClosedError) as caught:
        await top.next("more")
    assert caught.value.item == "more"
    with pytest.raises(ClosedError) as caught:
        sink.next_nowait("more")
    assert caught.value.item == "more"


class Pipe:
    """A named pipe that is not read until the test does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)

    def read(self) -> bytes:
        """Return all that was written; blocks until the writer is closed."""
        return self.path.read_bytes()


@linux
async def test_law_6_push_waits_while_maxsize_is_unwritten(tmp_path: Path) -> None:
    pipe = Pipe(tmp_path / "pipe")
    sink = SinkWriterObj[str](pipe.path, format="text", maxsize=10)
    # A line longer than maxsize is accepted alone.
    await sink.next("x" * 20)
    pushes = [asyncio.ensure_future(sink.next(text)) for text in ("1", "2", "3")]
    await yield_to_loop(5)
    assert not any(push.done() for push in pushes)
    with pytest.raises(WouldBlock) as caught:
        sink.next_nowait("4")
    assert caught.value.item == "4"
    # A push that is cancelled while it waits writes nothing.
    pushes[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushes[1]
    reading = asyncio.create_task(asyncio.to_thread(pipe.read))
    await pushes[0]
    await pushes[2]
    await sink.return_()
    assert await reading == b"x" * 20 + b"\n1\n3\n"


@linux
async def test_law_7_short_line_does_not_overtake_long_one(tmp_path: Path) -> None:
    pipe = Pipe(tmp_path / "pipe")
    sink = SinkWriterObj[str](pipe.path, format="text", maxsize=10)
    await sink.next("1234567")
    # The shorter lines behind it would fit.
    pushes = [asyncio.ensure_future(sink.next(text)) for text in ("long", "a", "b")]
    await yield_to_loop(5)
    assert not any(push.done() for push in pushes)
    with pytest.raises(WouldBlock):
        sink.next_nowait("c")
    # A cancelled push lets the next one proceed.
    pushes[0].cancel()
    await asyncio.wait(pushes[:2])
    assert pushes[1].done()
    assert not pushes[2].done()
    reading = asyncio.create_task(asyncio.to_thread(pipe.read))
    await pushes[2]
    await sink.return_()
    assert await reading == b"1234567\na\nb\n"


@linux
async def test_law_2_cancelled_end_can_be_repeated(tmp_path: Path) -> None:
    pipe = Pipe(tmp_path / "pipe")
    sink = SinkWriterObj[int](pipe.path)
    await sink.next(1)
    for _ in range(3):
        ending = asyncio.create_task(sink.return_())
        await yield_to_loop(3)
        assert not ending.done()
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
    reading = asyncio.create_task(asyncio.to_thread(pipe.read))
    await sink.return_()
    assert await reading == b"1\n"


async def assert_fails_once(sink: SinkWriterObj[Any], number: int, path: Path | str) -> None:
    """Push until the file's error is raised, which happens once."""
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        while True:
            await sink.next(1)
            await asyncio.sleep(0)
    assert (caught.value.errno, caught.value.filename) == (number, str(path))
    for push in (sink.next, sink.next_nowait):
        with pytest.raises(ClosedError) as closed:
            await push(2)  # type: ignore[misc]
        assert closed.value.item == 2
    await sink.return_()


@linux
async def test_disk_error_is_raised_once_by_next_push(tmp_path: Path) -> None:
    await assert_fails_once(SinkWriterObj("/dev/full"), errno.ENOSPC, "/dev/full")
    await assert_fails_once(SinkWriterObj(tmp_path), errno.EISDIR, tmp_path)
    missing = tmp_path / "gone" / "out"
    await assert_fails_once(SinkWriterObj(missing), errno.ENOENT, missing)


@linux
async def test_disk_error_is_raised_once_by_the_end(tmp_path: Path) -> None:
    for path, number, ends in (
        ("/dev/full", errno.ENOSPC, "return_"),
        (str(tmp_path), errno.EISDIR, "return_"),
        (str(tmp_path), errno.EISDIR, "throw"),
    ):
        sink = SinkWriterObj[int](path)
        await sink.next(1)
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            await (sink.return_() if ends == "return_" else sink.throw(KeyError("x")))
        assert caught.value.filename == path
        await sink.return_()


@linux
def test_file_at_size_limit_keeps_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "out"
    code = """
import asyncio, errno, resource, sys
from headrace import SinkWriterObj
resource.setrlimit(resource.RLIMIT_FSIZE, (1005, 1005))
async def main():
    sink = SinkWriterObj(sys.argv[1])
    try:
        for n in range(100_000):
            await sink.next(100 + n % 900)
        await sink.return_()
    except OSError as error:
        print(error.errno == errno.EFBIG, error.filename == sys.argv[1])
asyncio.run(main())
"""
    finished = run(code, path)
    assert (finished.stdout, finished.stderr) == ("True True\n", "")
    lines = path.read_text().split("\n")
    assert all(len(line) == 3 for line in lines[:-1])


async def test_law_4_throw_and_drop_write_accepted_items(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    sink = SinkWriterObj[int](first)
    for n in range(1000):
        await sink.next(n)
    await sink.throw(KeyError("x"))
    expected = "".join(f"{n}\n" for n in range(1000))
    assert first.read_text() == expected
    dropped = SinkWriterObj[int](second)
    for n in range(1000):
        await dropped.next(n)
    del dropped
    gc.collect()
    await eventually(lambda: second.exists() and second.read_text() == expected)


@linux
async def test_law_4_file_is_closed_when_end_returns(tmp_path: Path) -> None:
    path = tmp_path / "out"

    def is_open() -> bool:
        for number in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if number.readlink() == path:
                    return True
        return False

    for end in ("return", "throw", "drop"):
        sink = SinkWriterObj[int](path)
        await sink.next(1)
        await eventually(is_open)
        if end == "return":
            await sink.return_()
        elif end == "throw":
            await sink.throw(KeyError("x"))
        else:
            del sink
            await eventually(lambda: not is_open())
        assert not is_open()


def test_accepted_items_are_written_at_exit(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from headrace import SinkWriterObj
async def main():
    sink = SinkWriterObj(sys.argv[1])
    for n in range(int(sys.argv[2])):
        await sink.next(n)
    return sink
sink = asyncio.run(main())
"""
    for count in (1, 2, 1000):
        finished = run(code, tmp_path / "out", count)
        assert (finished.returncode, finished.stderr) == (0, "")
        assert (tmp_path / "out").read_text() == "".join(f"{n}\n" for n in range(count))


@linux
def test_exit_does_not_wait_for_blocked_pipe(tmp_path: Path) -> None:
    pipe = Pipe(tmp_path / "pipe")
    code = """
import asyncio, sys, time
from headrace import SinkWriterObj
async def main():
    sink = SinkWriterObj(sys.argv[1])
    await sink.next(1)
    await asyncio.sleep(0.2)
asyncio.run(main())
"""
    finished = run(code, pipe.path)
    assert (finished.returncode, finished.stderr) == (0, "")


@linux
def test_kill_truncates_only_the_last_line(tmp_path: Path) -> None:
    path = tmp_path / "out"
    code = """
import asyncio, sys
from headrace import SinkWriterObj
async def main():
    sink = SinkWriterObj(sys.argv[1])
    n = 0
    while True:
        await sink.next({"n": n, "text": "x" * (n % 1000)})
        n += 1
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as child:
        try:
            # Accepted lines are written by a thread: that the child has pushed some does not say that the file is there.
            asyncio.run(eventually(lambda: path.exists() and path.stat().st_size > 500_000))
        finally:
            child.send_signal(signal.SIGKILL)
    *lines, _ = path.read_bytes().split(b"\n")
    assert len(lines) > 500
    assert [json.loads(line)["n"] for line in lines] == list(range(len(lines)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_law_15_writer_is_refused_in_forked_child(tmp_path: Path) -> None:
    code = """
import asyncio, os, sys, warnings
warnings.simplefilter("ignore")
from headrace import SinkWriterObj, ForkError
loop = asyncio.new_event_loop()
sink = SinkWriterObj(sys.argv[1])
loop.run_until_complete(sink.next(1))
if (child := os.fork()) == 0:
    try:
        asyncio.run(sink.next(2))
    except ForkError:
        del sink
        mine = SinkWriterObj(sys.argv[1] + "2")
        async def main():
            await mine.next(3)
            await mine.return_()
        asyncio.run(main())
        os._exit(7)
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
loop.run_until_complete(sink.return_())
"""
    finished = run(code, tmp_path / "out")
    assert (finished.stdout, finished.stderr) == ("7\n", "")
    assert (tmp_path / "out").read_text() == "1\n"
    assert (tmp_path / "out2").read_text() == "3\n"
    assert ForkError is not None


async def test_law_13_maxsize_is_live(tmp_path: Path) -> None:
    sink = SinkWriterObj[int](tmp_path / "out")
    assert sink.maxsize == 1 << 20
    sink.maxsize = 1
    assert sink.maxsize == 1
    with pytest.raises(ValueError, match=r"maxsize must be at least 1 .*got 0 \(int\)"):
        sink.maxsize = 0
    for n in range(3):
        await sink.next(n)
    await sink.return_()
    assert (tmp_path / "out").read_text() == "0\n1\n2\n"


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: SinkWriterObj(wrong(3)), TypeError, r"path must be .*got 3 \(int\)"),
    (lambda: SinkWriterObj("a\0b"), ValueError, "path must not contain a null character"),
    (
        lambda: SinkWriterObj("a", format=wrong("csv")),
        ValueError,
        'format must be "jsonl" or "text", got \'csv\'',
    ),
    (
        lambda: SinkWriterObj("a", append=wrong(1)),
        TypeError,
        r"append must be True or False, got 1 \(int\)",
    ),
    (lambda: SinkWriterObj("a", maxsize=0), ValueError, r"maxsize must be .*got 0 \(int\)"),
    (lambda: SinkWriterObj("a", maxsize=wrong("1")), TypeError, r"maxsize must be .*got '1' \(str"),
]


@pytest.mark.parametrize(("make", "kind", "message"), BAD)
def test_law_14_bad_input_fails_at_construction(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()
