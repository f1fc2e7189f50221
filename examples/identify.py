"""Identify the files below a directory with a model: Magika detects file types by content.

    python examples/identify.py [DIRECTORY]

Two limits in a pipeline: at most 16 files are read and at most two are classified at once, and at most 32 contents wait
in between, for any number of files. Both steps block, so they run in threads. `site-packages` is skipped.
"""

import asyncio
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from magika import Magika, MagikaResult

from headrace import SKIP, CapacitySource, Skip, SourceIterObj


def files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        left_out = "site-packages" in path.relative_to(root).parts
        if not left_out and path.is_file() and not path.is_symlink():
            yield path


def read(path: Path) -> tuple[Path, bytes]:
    return path, path.read_bytes()


def unread(error: Exception) -> Skip:
    print(f"not read: {error}")
    return SKIP


async def main(root: Path) -> None:
    model = await asyncio.to_thread(Magika)  # loading the model is slow

    def judge(file: tuple[Path, bytes]) -> tuple[Path, MagikaResult]:
        return file[0], model.identify_bytes(file[1])

    reading, judging = CapacitySource(16, name="reading"), CapacitySource(2, name="judging")
    contents = SourceIterObj(files(root)).map_pool(read, reading, thread=True, max_buffered=32)
    kinds: Counter[str] = Counter()
    async with contents.catch(unread).map_pool(judge, judging, thread=True) as judged:
        async for path, verdict in judged:
            kind, suffix = verdict.output, path.suffix.removeprefix(".").lower()
            kinds[kind.description] += 1
            if verdict.score > 0.95 and suffix and suffix not in (kind.extensions or [suffix]):
                print(f"{path.relative_to(root)} is {kind.description} ({verdict.score:.0%})")
    print(f"\n{kinds.total()} files")
    for description, count in kinds.most_common():
        print(f"{count:>6}  {description}")


if __name__ == "__main__":
    root = Path(*sys.argv[1:] or [sysconfig.get_path("stdlib")])
    if not root.is_dir():
        sys.exit(f"{root} is no directory; name one that is there")
    asyncio.run(main(root))
