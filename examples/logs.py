"""Log records of many threads, fanned out to a file, to the terminal and to a count.

    python examples/logs.py [DIRECTORY]

A logging handler is called in the thread that logs. This one pushes into a buffer, which never makes a thread wait: when
the loop lags 10,000 lines behind, the oldest are dropped and counted. What is pulled goes to every branch of a fan:

    threads -> buffer -> fan --+-- every line, as JSON, into logs.jsonl
                               +-- warnings, and what is worse, to the terminal
                               +-- how many of each level there were, four times a second
"""

import asyncio
import logging
import sys
import sysconfig
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from headrace import (
    CapacitySource,
    PushChain,
    PushPullBufferObj,
    SinkCallbackObj,
    SinkWriterObj,
    SourceIterObj,
)

Line = dict[str, object]
LOG = logging.getLogger("reader")


class PushHandler(logging.Handler):
    def __init__(self, buffer: PushPullBufferObj[Line]) -> None:
        super().__init__()
        self.sink = buffer.sink

    def emit(self, record: logging.LogRecord) -> None:
        line = Line(time=record.created, level=record.levelname, thread=record.threadName)
        self.sink.next_nowait(line | {"message": self.format(record)})


def read(path: Path) -> None:
    try:
        with tokenize.open(path) as file:
            lines = len(file.readlines())
        LOG.log(logging.WARNING if lines > 5000 else logging.INFO, "%s: %d lines", path.name, lines)
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        LOG.error("%s: %s", path.name, error)


def count(lines: list[Line]) -> None:
    print(f"{len(lines):>5} lines:", dict(Counter(line["level"] for line in lines)))


async def main(files: Iterator[Path]) -> None:
    buffer = PushPullBufferObj[Line](10_000, overflow="drop_oldest")
    LOG.addHandler(PushHandler(buffer))
    LOG.setLevel(logging.INFO)
    line = PushChain.start(Line)
    loud = line.filter(lambda line: line["level"] != "INFO").map("{level:<8}{message}".format_map)
    counted = line.batch(10_000, 0.25).into(SinkCallbackObj(count))
    fan = line.fork(SinkWriterObj("logs.jsonl"), loud.into(SinkCallbackObj(print)), counted)
    work = SourceIterObj(files).map_pool(read, CapacitySource(8), thread=True)
    async with asyncio.TaskGroup() as group, work:
        group.create_task(buffer.source.drain_to(fan))
        print(await work.count(), "files were read")
        await buffer.sink.return_()
    print(buffer.statistics().dropped, "lines were dropped")


if __name__ == "__main__":
    root = Path(*sys.argv[1:] or [sysconfig.get_path("stdlib")])
    if not root.is_dir():
        sys.exit(f"{root} is no directory; name one that is there")
    files = (it for it in root.rglob("*.py") if "site-packages" not in it.relative_to(root).parts)
    asyncio.run(main(files))
