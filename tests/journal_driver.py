"""A program with a journaled run, which `test_journal_kill.py` kills and `test_journal_disk.py` starves of space.

    python journal_driver.py '{"mode": "ordered", "path": …, "durability": …, "count": …, "seed": …, "limit": …}'

It writes lines of JSON to its standard output, each by one `write`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import warnings
from typing import Any

from headrace import (
    CapacitySource,
    HierarchicalTaskPoolRunner,
    Journal,
    JournalStopped,
    JournalWarning,
    MapError,
    Task,
    amap,
)


def note(**facts: Any) -> None:
    """Write a line."""
    os.write(1, json.dumps(facts).encode() + b"\n")


def find_stop(error: BaseException) -> JournalStopped | None:
    """Return the error of the journal in a group."""
    if isinstance(error, JournalStopped):
        return error
    parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return next(filter(None, map(find_stop, parts)), None)


async def run(options: dict[str, Any]) -> None:
    """Make all calls, and write their results as they are delivered."""
    rng = random.Random(options["seed"])
    keys = [f"key {number}" for number in range(options["count"])]

    async def call(key: str) -> str:
        note(begun=key)
        for _ in range(rng.randrange(1, 4)):
            await asyncio.sleep(rng.choice([0, 0, 0.002]))
        note(returns=key)
        return f"done {key} " + str("x" * options.get("size", 0))

    def shown(result: str) -> str:
        return result.partition(" x")[0].strip()

    with Journal(options["path"], durability=options["durability"]) as journal:
        note(in_flight=list(journal.in_flight))
        if options["mode"] == "groups":
            root = CapacitySource(4)
            groups = [CapacitySource(2, root) for _ in range(3)]
            runners = [
                HierarchicalTaskPoolRunner(
                    [Task(call, key, key=key) for key in keys[number::3]],
                    group,
                    journal=journal if number == 0 else f"{options['path']}.{number}",
                )
                for number, group in enumerate(groups)
            ]

            async def follow(runner: HierarchicalTaskPoolRunner[Any]) -> None:
                async with runner.run_tasks() as events:
                    async for event in events:
                        note(result=shown(event.value))

            await asyncio.gather(*map(follow, runners))
        else:
            is_ordered = options["mode"] == "ordered"
            async with amap(call, keys, limit=4, ordered=is_ordered, journal=journal) as stream:
                async for result in stream:
                    note(result=shown(result))
    note(is_complete=True)


def main() -> None:
    """Run the program."""
    options = json.loads(sys.argv[1])
    if limit := options.get("limit"):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    warnings.simplefilter("always", JournalWarning)
    warnings.showwarning = lambda message, *_: note(warning=str(message))
    try:
        asyncio.run(run(options))
    except (JournalStopped, MapError) as error:
        stop = find_stop(error)
        if stop is None:
            raise
        note(unrecorded=stop.unrecorded, cause=repr(stop.__cause__))
    except OSError as error:
        # At the open.
        note(refused=error.errno)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
