"""What arrives of 200 items, one every 5 ms, when every pull is given up after 2 ms, and the next one follows, up to the end.

By hand, async generators, which a cancellation ends. A channel of aiochan sometimes fails an assertion then.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from leaving import left_properly
from row import Probe
from shapes import ONE_STAGE, SIDE_BY_SIDE
from stages import inc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ITEMS = 200
EVERY = 0.005
PATIENCE = 0.002


class Ticks:
    """A number every 5 ms, on a schedule. A pull of it that is cancelled loses nothing."""

    def __init__(self) -> None:
        self._next = 0
        self._begun: float | None = None

    def __aiter__(self) -> Ticks:
        return self

    async def __anext__(self) -> int:
        if self._next == ITEMS:
            raise StopAsyncIteration
        now = asyncio.get_running_loop().time()
        if self._begun is None:
            self._begun = now
        await asyncio.sleep(self._begun + (self._next + 1) * EVERY - now)
        self._next += 1
        return self._next - 1


async def generated() -> AsyncIterator[int]:
    for x in range(ITEMS):
        await asyncio.sleep(EVERY)
        yield x


async def slow(x: int) -> int:
    await asyncio.sleep(EVERY)
    return x + 1


async def received(stream: Any) -> str:
    """Pulls until the end, or for ten seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 10
    got: list[int] = []
    came_to = ""
    async with left_properly(stream) as iterator:
        while loop.time() < end:
            try:
                got.append(await asyncio.wait_for(anext(iterator), PATIENCE))
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
            except Exception as error:  # whatever a library raises ends it
                came_to = f", then {type(error).__name__}"
                break
        else:
            came_to = ", no end"
    distinct = set(got) & set(range(1, ITEMS + 1))
    repeated = f", {len(got) - len(distinct)} wrong" if len(got) > len(distinct) else ""
    return f"{len(distinct)}{repeated}{came_to}"


async def over(source: Callable[[], Any], line: Callable[[Any], Any]) -> str:
    return await received(line(source()))


async def side_by_side(calls: Callable[[int, Any, int], Any]) -> str:
    return await received(calls(ITEMS, slow, 2))


def behind_eager(source: Any) -> Any:
    from headrace import SourceIterObj

    return SourceIterObj(source).prefetch().map(inc)


GROUP = [
    Probe(
        "one stage over a source that bears it itself",
        str(ITEMS),
        {name: partial(over, Ticks, line) for name, line in ONE_STAGE.items()},
    ),
    Probe(
        "one stage over an async generator, as it is",
        str(ITEMS),
        {name: partial(over, generated, line) for name, line in ONE_STAGE.items()},
    ),
    Probe(
        "the same behind `prefetch()`, a task that pulls ahead",
        str(ITEMS),
        {"headrace": partial(over, generated, behind_eager)},
    ),
    Probe(
        "calls side by side, 2 at once, 5 ms each",
        str(ITEMS),
        {name: partial(side_by_side, calls) for name, calls in SIDE_BY_SIDE.items()},
    ),
]
