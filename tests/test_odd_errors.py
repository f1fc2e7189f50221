"""Errors that are no `Exception`: one of a user's class costs one item, as any other; two kinds end the program."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    DependencyGraph,
    EnvelopeType,
    HierarchicalTaskPoolRunner,
    PullEagerObj,
    PullObj,
    PullPushBridgeObj,
    PullTimeoutObj,
    PullWindowTimeoutObj,
    PushForkObj,
    PushMapObj,
    PushWindowObj,
    PushWindowTimeoutObj,
    SinkCollectObj,
    SinkObj,
    SourceIterObj,
    Task,
)
from headrace._internal.error_notes import as_group, raise_closing
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import Callable


class OddError(BaseException):
    """An error that is no `Exception`, as the outcomes of pytest are."""


class Failing(SinkObj[Any]):
    """Raises for some items, and at its end; at once or after a turn of the loop."""

    def __init__(self, *bad: Any, raises: type[BaseException] = OddError, waits: bool = False):
        super().__init__()
        self.bad = bad
        self.items: list[Any] = []
        self.ends: list[Any] = []
        self._raises = raises
        self._waits = waits

    async def next_impl(self, item: Any) -> None:
        if self._waits:
            await asyncio.sleep(0)
        if item in self.bad:
            raise self._raises(item)
        self.items.append(item)

    async def return_impl(self, value: Any) -> None:
        self.ends.append(value)
        if "end" in self.bad:
            raise self._raises("end")


def raising(kind: type[BaseException], *bad: int) -> Callable[[int], int]:
    def transform(n: int) -> int:
        if n in bad:
            raise kind(n)
        return n

    return transform


PUMPS: list[Callable[[PullObj[int]], PullObj[Any]]] = [
    lambda source: PullEagerObj(source, 2),
    lambda source: PullTimeoutObj(source, 100),
    lambda source: PullTimeoutObj(source, 100, on_timeout="skip"),
    lambda source: PullWindowTimeoutObj(source, 1, 100),
]


@pytest.mark.parametrize("make", PUMPS)
async def test_law_3_pytests_outcomes_cost_one_item(make: Any) -> None:
    def fail(n: int) -> int:
        if n == 1:
            pytest.fail("no")
        return n

    stream = make(SourceIterObj(range(3)).map(fail))
    got: list[Any] = []
    while True:
        try:
            got.append(await anext(stream))
        except StopAsyncIteration:
            break
        except pytest.fail.Exception as error:
            got.append(str(error))
    flat = [item[0] if isinstance(item, list) else item for item in got]
    assert flat == [0, "no", 2]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("make", PUMPS)
def test_law_3_what_ends_the_program_reaches_a_pull_that_waits(make: Any, kind: Any) -> None:
    """And the stream goes on, in a loop that is run again."""
    stream = make(SourceIterObj(range(3)).map(raising(kind, 0)))

    async def pull() -> Any:
        return await anext(stream)

    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(kind):
            loop.run_until_complete(pull())
        assert loop.run_until_complete(pull()) in (1, [1])
        loop.run_until_complete(stream.aclose())
    finally:
        loop.close()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_law_3_what_ends_the_program_is_not_held_for_a_later_pull(kind: Any) -> None:
    stream = PullEagerObj(SourceIterObj(range(4)).map(raising(kind, 1)), 4)
    seen: list[int] = []

    async def pull() -> None:
        async for n in stream:
            seen.append(n)
            # Ended by the error alone.
            await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(kind):
            loop.run_until_complete(pull())
        assert seen == [0]

        async def rest() -> list[int]:
            return [n async for n in stream]

        assert loop.run_until_complete(rest()) == [2, 3]
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    finally:
        loop.close()


async def test_law_3_every_branch_of_a_shared_stream_gets_it() -> None:
    left, right = SourceIterObj(range(3)).map(raising(OddError, 1)).tee(2)
    for branch in (left, right):
        assert await anext(branch) == 0
        with pytest.raises(OddError):
            await anext(branch)
        assert [n async for n in branch] == [2]


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("concurrent", [False, True])
async def test_a_branch_of_a_fork_keeps_it_to_itself(waits: bool, concurrent: bool) -> None:
    failing, other = Failing(1, waits=waits), Failing(waits=waits)
    fork = PushForkObj([failing, other], concurrent=concurrent)
    for n in range(3):
        if n == 1:
            with pytest.raises(OddError) as caught:
                await fork.next(n)
            assert vars(caught.value)["accepted_by"] == (other,)
        else:
            await fork.next(n)
    assert (failing.items, other.items) == ([0, 2], [0, 1, 2])


async def test_a_fork_ends_every_sink() -> None:
    sinks = [Failing("end"), Failing(), Failing("end")]
    with pytest.raises(BaseExceptionGroup):
        await PushForkObj(sinks).return_()
    assert [len(sink.ends) for sink in sinks] == [1, 1, 1]


async def test_the_end_of_a_line_ends_its_sink() -> None:
    sink = Failing([1])
    line = PushMapObj[int, int](PushWindowObj(sink, 2), int)
    await line.next(1)
    with pytest.raises(OddError):
        await line.return_()
    assert sink.ends == [None]


async def test_the_end_of_a_timed_window_delivers_the_other_lists() -> None:
    sink = Failing([0, 1], "end")
    window = PushWindowTimeoutObj(sink, 2, 100)
    for n in range(3):
        window.next_nowait(n)
    with pytest.raises(BaseExceptionGroup):
        await window.return_()
    assert sink.items == [[2]]
    assert sink.ends == [None]


async def test_a_list_that_failed_in_the_background_costs_itself() -> None:
    sink = Failing([0, 1])
    window = PushWindowTimeoutObj(sink, 2, 100)
    window.next_nowait(0)
    window.next_nowait(1)
    # Delivered in the background.
    await until(lambda: not window._window.lists)
    with pytest.raises(OddError):
        await window.next(2)
    await window.next(2)
    await window.next(3)
    assert sink.items == [[2, 3]]
    await window.return_()


async def test_a_bridge_delivers_to_the_other_sinks_and_ends_them() -> None:
    failing, other = Failing(1, "end"), SinkCollectObj[int]()
    bridge = PullPushBridgeObj(range(3), failing, other)
    assert await anext(bridge) == 0
    with pytest.raises(OddError):
        await anext(bridge)
    assert await anext(bridge) == 2
    with pytest.raises(OddError):
        await anext(bridge)
    assert other.buffer == [0, 1, 2]
    assert other.closed


async def test_a_source_of_a_pool_is_pulled_again() -> None:
    async def work(n: int) -> int:
        return n

    source = SourceIterObj(range(3)).map(raising(OddError, 1)).map(lambda n: Task(work, n))
    run = HierarchicalTaskPoolRunner(source, CapacitySource(1)).run_tasks()
    values: list[Any] = []
    while True:
        try:
            envelope = await anext(run)
        except StopAsyncIteration:
            break
        except OddError as error:
            values.append(error.args[0])
        else:
            assert envelope.type is EnvelopeType.FINAL
            values.append(envelope.value)
    assert values == [0, 1, 2]


async def test_a_graphs_callbacks_all_hear_of_it() -> None:
    graph = DependencyGraph()
    heard: list[Any] = []

    def fail(*key: Any) -> None:
        raise OddError

    graph.on_ready(fail)
    graph.on_ready(lambda *key: heard.append(key))
    with pytest.raises(OddError):
        graph.add("a")
    assert heard


def test_an_error_that_ends_the_program_is_not_put_into_a_group() -> None:
    stop = KeyboardInterrupt()
    assert as_group([ValueError(1), stop], "several") is stop
    assert stop.__notes__ == ["several: ValueError(1)"]
    with pytest.raises(KeyboardInterrupt):
        raise_closing(asyncio.CancelledError(), [stop], "several")
