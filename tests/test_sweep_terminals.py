"""Terminals over every source, and `collect` of every pull operator: a cancelled terminal loses nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from headrace import PullObj, SourceIterObj
from headrace.testing import sweep
from tests.support import yield_to_loop
from tests.sweep_sources import pausing
from tests.sweep_tables import ROWS, TIMEOUT, as_params, every_source
from tests.sweep_types import CallCounter, Row, SourceKind

pytestmark = pytest.mark.usefixtures("sweep_files")


@dataclass
class TerminalStream:
    """The items that a terminal received, as a stream; a cancelled terminal is started again."""

    stream: PullObj[Any]
    terminal: str
    wrap_counted: CallCounter

    def __post_init__(self) -> None:
        self.received_items: list[Any] = []
        self.is_finished = False
        self.counted = self.stream.tap(self.received_items.append)

    async def __anext__(self) -> Any:
        if not self.is_finished:
            await self.run()
            self.is_finished = True
        if not self.received_items:
            raise StopAsyncIteration
        return self.received_items.pop(0)

    def __aiter__(self) -> TerminalStream:
        return self

    async def run(self) -> None:
        match self.terminal:
            case "collect":
                self.received_items += await self.stream.collect()
            case "count":
                await self.counted.count()
            case "for_each":
                await self.stream.for_each(self.record)
            case "reduce":
                await self.stream.reduce(self.record, None)
            case _:
                while (item := await self.stream.first(self)) is not self:
                    self.received_items.append(item)

    async def record(self, *arguments: Any) -> None:
        if self.wrap_counted.is_async:
            await yield_to_loop(2)
        self.received_items.append(arguments[-1])

    async def aclose(self) -> None:
        await self.counted.aclose()


@pytest.mark.parametrize("terminal", ["collect", "count", "first", "for_each", "reduce"])
@every_source
async def test_law_2_cancelled_terminal_loses_nothing(terminal: str, source: SourceKind) -> None:
    for wrap_counted in (CallCounter(False), CallCounter(True)):

        def build(wrap_counted: CallCounter = wrap_counted) -> Any:
            wrap_counted.begin()
            pipeline = (
                source.open(range(6)).map(wrap_counted(lambda n: n + 1)).filter(lambda n: n != 3)
            )
            return TerminalStream(pipeline.batch(2).flatten(), terminal, wrap_counted)

        await sweep(
            build,
            [1, 2, 4, 5, 6],
            interruptions=["cancel", "late", "twice", "timeout"],
            excused_by=source.excused_by,
            timeout=TIMEOUT,
        )


@pytest.mark.parametrize(
    "row", as_params([row for row in ROWS if not (row.timed or row.has_own_anext)])
)
async def test_law_2_cancelled_collect_puts_items_back(row: Row) -> None:
    for wrap_counted in row.kinds():

        def build(wrap_counted: CallCounter = wrap_counted) -> Any:
            wrap_counted.begin()
            stream = row.build(SourceIterObj(pausing(list(row.items))), wrap_counted)
            return TerminalStream(stream, "collect", wrap_counted)

        await sweep(
            build,
            row.expected(),
            interruptions=["cancel", "timeout"],
            ordered=row.ordered,
            timeout=TIMEOUT,
        )
