"""Sources of the lines of a file, compared with `open` and by law."""

from __future__ import annotations

import asyncio
import gc
import gzip
import operator
import os
import random
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace import ForkError, SourceIterObj, SourceLinesObj
from tests.line_files import descriptors, numbered_lines, on_linux, write_file
from tests.support import collect, eventually

if TYPE_CHECKING:
    from collections.abc import Callable


ENCODINGS = ["utf-8", "utf-8-sig", "latin-1", "cp1252", "shift_jis", "gb18030", "ascii", "cp864"]


# Large enough for several reads, with lines across their boundaries.
LARGE = 700_000


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\r",
        b"\r\n",
        b"a",
        b"a\nb",
        b"a\r\nb\rc\n\rd\r\r\ne",
        b"\x1f\n",
        b"\0\n\x0b\x0c\x1c\x85\n".replace(b"\x85", b""),
        "\u2028é\n\ufeff€\n𝄞".encode(),
        b"\xef\xbb\xbfmarked\n",
        b"x" * LARGE,
        b"x" * LARGE + b"\n" + b"y" * 10 + b"\r\n" + b"z" * LARGE,
        b"\n" * LARGE,
        b"\r\n" * LARGE,
        b"\r" * LARGE,
        numbered_lines(60_000),
        numbered_lines(60_000).replace(b"\n", b"\r\n"),
        "grüße\n".encode() * 50_000,
    ],
    ids=lambda content: f"{content[:12]!r}-{len(content)}",
)
async def test_lines_match_those_of_open(tmp_path: Path, content: bytes, zipped: bool) -> None:
    path = write_file(tmp_path / "file", content, zipped=zipped)
    opener: Any = gzip.open if zipped else open
    with opener(path, "rt", encoding="utf-8") as file:
        expected = list(file)
    assert await collect(SourceLinesObj(path)) == expected


# The text does not depend on the event loop, which the tests above vary.
@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("errors", ["strict", "replace", "ignore", "backslashreplace"])
async def test_random_lines_match_those_of_open(tmp_path: Path, encoding: str, errors: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    # Use only characters of the encoding, so that strict can read them.
    alphabet = [
        character
        for character in "abc \té€ßあ漢𝄞٪%\\~\x85\xa0"
        if character.encode(encoding, "ignore").decode(encoding) == character
    ]
    for _ in range(12):
        pieces: list[bytes] = []
        for _ in range(rng.choice([3, 300, 9000])):
            text = "".join(rng.choices(alphabet, k=rng.choice([0, 1, 20, 90])))
            pieces.append(text.encode(encoding.removesuffix("-sig")))
            if errors != "strict" and rng.random() < 0.05:
                # Behind a letter, since an ignored byte between "\r" and "\n" separates them here.
                pieces.append(b"x" + rng.randbytes(2).translate(None, b"\r\n"))
            pieces.append(rng.choice([b"\n", b"\n", b"\r\n", b"\r", b""]))
        # End with a complete character: one that is cut off by the end of the file has another test.
        content = b"".join([*pieces, b"\nend"])
        if encoding == "utf-8-sig" and rng.random() < 0.7:
            content = b"\xef\xbb\xbf" + content
        zipped = rng.random() < 0.3
        path = write_file(tmp_path / "file", content, zipped=zipped)
        opener: Any = gzip.open if zipped else open
        with opener(path, "rt", encoding=encoding, errors=errors) as file:
            expected = list(file)
        assert await collect(SourceLinesObj(path, encoding=encoding, errors=errors)) == expected


async def test_ignored_last_line_is_no_line(tmp_path: Path) -> None:
    path = write_file(tmp_path / "file", b"a\n\xff")
    assert await collect(SourceLinesObj(path, errors="ignore")) == ["a\n"]


async def test_lines_in_a_pipeline(large: Path) -> None:
    lengths = SourceLinesObj(large).filter(lambda line: line[-2] in "05").map(len)
    total = lengths.accumulate(operator.add).skip(19_999)
    with large.open() as file:
        assert await collect(total) == [sum(len(line) for line in file if line[-2] in "05")]
    nested = SourceIterObj([large, large]).flat_map(SourceLinesObj)
    assert len(await collect(nested)) == 200_000


async def test_gzip_members_and_padding_are_read(tmp_path: Path) -> None:
    compressed = gzip.compress(b"one\ntw") + b"\0" * 100_000 + gzip.compress(b"o\n") + b"\0" * 7
    path = write_file(tmp_path / "file", compressed)
    with gzip.open(path, "rt") as file:
        assert await collect(SourceLinesObj(path)) == list(file) == ["one\n", "two\n"]


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
async def test_any_kind_of_path(large: Path, kind: Callable[[Any], Any]) -> None:
    source = SourceLinesObj(kind(large))
    assert source.path == kind(large)
    assert await anext(source) == "line 0\n"


@on_linux
async def test_law_1_file_is_opened_at_the_first_pull(tmp_path: Path) -> None:
    path = tmp_path / "later.txt"
    source = SourceLinesObj(path)
    write_file(path, b"there\n")
    assert descriptors(path) == []
    assert await collect(source) == ["there\n"]
    assert descriptors(path) == []


async def test_law_2_cancelled_pull_loses_no_line(fifo: Path) -> None:
    stream = SourceLinesObj(fifo).map(str.strip)
    for _ in range(3):
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    writer = os.open(fifo, os.O_WRONLY)
    os.write(writer, b"one\ntwo\nthr")
    assert [await anext(stream), await anext(stream)] == ["one", "two"]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.001)
    os.write(writer, b"ee\nfour")
    assert await anext(stream) == "three"
    os.close(writer)
    assert await collect(stream) == ["four"]


async def test_law_2_random_cancellations_lose_no_line(large: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    stream, received = SourceLinesObj(large), list[str]()
    while True:
        task = asyncio.ensure_future(stream.next())
        if rng.random() < 0.3:
            for _ in range(rng.randrange(2)):
                await asyncio.sleep(0)
            task.cancel()
        try:
            result = await task
        except asyncio.CancelledError:
            continue
        if result.done:
            break
        received.append(result.value)
        for _ in range(rng.choice([0, 0, 900])):
            received.append(await anext(stream, ""))
    assert "".join(received).encode() == numbered_lines(100_000)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "ascii", "shift_jis"])
async def test_law_3_undecodable_line_costs_that_line(tmp_path: Path, encoding: str) -> None:
    path = write_file(
        tmp_path / "file", numbered_lines(20_000) + b"b\xffd\nafter\n" + numbered_lines(2)
    )
    stream = SourceLinesObj(path, encoding=encoding)
    for number in range(20_000):
        assert await anext(stream) == f"line {number}\n"
    with pytest.raises(UnicodeDecodeError) as caught:
        await anext(stream)
    # CPython adds notes of its own for some encodings.
    assert caught.value.__notes__[-1] == f"line 20001 of {path}"
    assert await collect(stream) == ["after\n", "line 0\n", "line 1\n"]


async def test_law_3_file_error_ends_the_stream(
    tmp_path: Path,
) -> None:
    path = tmp_path / "missing.txt"
    stream = SourceLinesObj(path).map(str.strip)
    with pytest.raises(FileNotFoundError) as caught:
        await anext(stream)
    assert caught.value.filename == str(path)
    assert caught.value.errno == 2
    assert str(caught.value).startswith("[Errno 2] ")
    assert await collect(stream) == []
    write_file(path, b"found\n")
    stream.restart()
    assert await collect(stream) == ["found"]


async def test_law_3_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        await anext(SourceLinesObj(tmp_path))
    assert caught.value.filename == str(tmp_path)


@on_linux
async def test_law_3_broken_file_yields_the_lines_before(tmp_path: Path) -> None:
    random_text = "".join(f"{random.random()}\n" for _ in range(50_000)).encode()
    compressed = gzip.compress(random_text)
    cut = write_file(tmp_path / "cut.gz", compressed[: len(compressed) // 2])
    stream, received = SourceLinesObj(cut), list[str]()
    with pytest.raises(EOFError, match=r"cut\.gz: the gzip file ended before"):
        while True:
            received.append(await anext(stream))
    assert len(received) > 1000
    assert random_text.startswith("".join(received).encode())
    assert descriptors(cut) == []
    assert await collect(stream) == []
    spoilt = bytearray(compressed)
    spoilt[-8] ^= 1
    broken = write_file(tmp_path / "broken.gz", bytes(spoilt))
    stream = SourceLinesObj(broken)
    with pytest.raises(gzip.BadGzipFile, match=r"broken\.gz: "):
        async for _ in stream:
            pass
    assert await collect(stream) == []
    trailing = write_file(tmp_path / "trailing.gz", gzip.compress(b"a\n") + b"rubbish")
    stream = SourceLinesObj(trailing)
    assert await anext(stream) == "a\n"
    with pytest.raises(OSError, match=r"trailing\.gz: "):
        await anext(stream)


@on_linux
async def test_law_6_read_ahead_is_bounded(tmp_path: Path) -> None:
    path = write_file(tmp_path / "file", b"0123456789\n" * 500_000)
    stream = SourceLinesObj(path)

    def read_ahead(taken: int) -> int:
        (number,) = descriptors(path)
        _, position, *_ = Path("/proc/self/fdinfo", number).read_text().split()
        return int(position) - taken

    for taken in range(20_000, 200_000, 20_000):
        for _ in range(20_000):
            await anext(stream)
        await eventually(partial(lambda taken: read_ahead(taken * 11) > 2**18, taken))
        # Enough time to read the whole file if there were no bound.
        for _ in range(100):
            assert read_ahead(taken * 11) < 6 * 2**17
            await asyncio.to_thread(bytes)
    await stream.aclose()


async def test_law_11_restart_opens_the_file_again(large: Path) -> None:
    stream = SourceLinesObj(large).map(str.strip)
    for count in (0, 1, 50_000):
        for number in range(count):
            assert await anext(stream) == f"line {number}"
        stream.restart()
    write_file(large, b"new\n")
    stream.restart()
    assert await collect(stream) == ["new"]
    await stream.aclose()
    stream.restart()
    assert await collect(stream) == ["new"]


async def test_law_12_concurrent_pulls_are_served_in_order(large: Path) -> None:
    stream = SourceLinesObj(large)
    lines = await asyncio.gather(*(anext(stream) for _ in range(50)))
    assert lines == [f"line {number}\n" for number in range(50)]


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        ([3], {}, TypeError, r"path must be a str, bytes or os.PathLike, got 3 \(int\)"),
        ([None], {}, TypeError, r"path must be .*, got None \(NoneType\)"),
        (["a\0b"], {}, ValueError, "path must not contain a null character"),
        (["a"], {"encoding": None}, TypeError, r"encoding must be a str, got None"),
        (["a"], {"encoding": "utf-99"}, ValueError, r"encoding must name an encoding .* 'utf-99'"),
        (["a"], {"errors": 1}, TypeError, r"errors must be a str, got 1 \(int\)"),
        (["a"], {"errors": "loud"}, ValueError, r"errors must name an error handler .* 'loud'"),
        *(
            (["a"], {"encoding": encoding}, ValueError, f"lines can be told apart.*'{encoding}'")
            for encoding in [
                "utf-16",
                "utf-16-le",
                "utf-32-be",
                "utf-7",
                "cp037",
                "hz",
                "iso2022_jp",
                "iso2022_kr",
                "unicode_escape",
                "raw_unicode_escape",
                "punycode",
                "rot13",
                "hex",
            ]
        ),
    ],
)
def test_law_14_lines_refuse_bad_input(
    arguments: list[Any], options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        SourceLinesObj(*arguments, **options)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_law_15_forked_child_refuses_the_old_stream(large: Path) -> None:
    stream = SourceLinesObj(large)

    async def first() -> str:
        return await anext(stream)

    assert asyncio.run(first()) == "line 0\n"
    child = os.fork()
    if not child:
        code = 1
        try:
            with pytest.raises(ForkError):
                asyncio.run(first())
            del stream
            gc.collect()

            async def compressed() -> int:
                return len(await collect(SourceLinesObj(large)))

            assert asyncio.run(compressed()) == 100_000
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


async def test_law_9_many_files_on_two_loops(large: Path) -> None:
    counts: list[int] = []

    async def read(path: Path) -> None:
        counts.append(len(await collect(SourceLinesObj(path))))

    async def three(path: Path) -> None:
        await asyncio.gather(*(read(path) for _ in range(3)))

    thread = threading.Thread(target=lambda: asyncio.run(three(large)))
    thread.start()
    await three(large)
    await asyncio.to_thread(thread.join)
    assert counts == [100_000] * 6


@pytest.mark.parametrize(
    "end",
    [
        "",
        "sys.exit()",
        "waiting = asyncio.ensure_future(anext(SourceLinesObj(sys.argv[2]))); await asyncio.sleep(0.01)",
    ],
)
def test_script_with_a_half_read_file_exits_at_once(large: Path, fifo: Path, end: str) -> None:
    program = f"""
import asyncio, sys
from headrace import SourceLinesObj
async def main():
    global stream
    stream = SourceLinesObj(sys.argv[1])
    print([await anext(stream) for _ in range(3)])
    {end}
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(large), str(fifo)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['line 0\\n', 'line 1\\n', 'line 2\\n']\n"
