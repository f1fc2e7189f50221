"""Random programs over random pipelines: after any cancellation, drop or close, nothing hangs, crashes or leaks."""

from __future__ import annotations

import asyncio
import gc
import operator
import random
from typing import TYPE_CHECKING, Any

import pytest

from headrace import PullObj, SourceBufferObj, SourceIterObj

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Program:
    """One random pipeline, pulled at random stages and interrupted in random ways."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.opened = self.closed = 0

    async def numbers(self) -> AsyncIterator[int]:
        self.opened += 1
        try:
            for n in range(30):
                await self.pause(2)
                yield n
        finally:
            self.closed += 1

    async def pause(self, most: int) -> None:
        for _ in range(self.rng.randrange(most + 1)):
            await asyncio.sleep(0)

    async def slow(self, n: int) -> int:
        await self.pause(2)
        if self.rng.random() < 0.05:
            raise ValueError(n)
        return n

    def pipeline(self) -> list[PullObj[int]]:
        sources: list[Callable[[], PullObj[int]]] = [
            lambda: SourceIterObj(range(30)),
            lambda: SourceIterObj(self.numbers()),
            lambda: SourceBufferObj(range(30)),
        ]
        links = [self.rng.choice(sources)()]
        for _ in range(self.rng.randrange(4)):
            last = links[-1]
            operators: list[Callable[[PullObj[int]], PullObj[int]]] = [
                lambda link: link.map(self.slow),
                lambda link: link.map(operator.neg),
                lambda link: link.filter(lambda n: n % 5),
                lambda link: link.accumulate(max),
            ]
            links.append(self.rng.choice(operators)(last))
        return links

    async def run(self) -> None:
        links = self.pipeline()
        pulls: list[asyncio.Future[Any]] = []
        for _ in range(40):
            link = self.rng.choice(links)
            dice = self.rng.random()
            if dice < 0.05:
                self.step_and_drop(link)
            elif dice < 0.08:
                await link.aclose()
            elif dice < 0.3 and pulls:
                self.rng.choice(pulls).cancel()
            else:
                pulls.append(asyncio.ensure_future(link.next()))
            await self.pause(1)
        await links[-1].aclose()
        async with asyncio.timeout(20):
            await asyncio.gather(*pulls, return_exceptions=True)

    @staticmethod
    def step_and_drop(link: PullObj[int]) -> None:
        pull = anext(link)
        try:
            pull.send(None)
        except (StopIteration, StopAsyncIteration, Exception):
            return
        del pull


@pytest.mark.parametrize("seed", range(20))
async def test_law_5_random_pipelines_close_all_sources(seed: int) -> None:
    print("seed", seed)
    threshold = gc.get_threshold()
    # The collector runs between almost any two steps.
    gc.set_threshold(5, 2, 2)
    try:
        for _ in range(5):
            program = Program(random.Random(seed * 100 + _))
            await program.run()
            assert program.opened == program.closed
    finally:
        gc.set_threshold(*threshold)
