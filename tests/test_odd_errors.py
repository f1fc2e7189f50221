"""Errors that are no `Exception`. A class of the user costs one item, as others do; two kinds end the program."""

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
    """An error that is no `Exception`, like those that pytest raises."""


class Failing(SinkObj[Any]):
    """A sink that raises for some items and at its end, at once or in the next event-loop iteration."""

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


BACKGROUND_STREAMS: list[Callable[[PullObj[int]], PullObj[Any]]] = [
    lambda source: PullEagerObj(source, 2),
    lambda source: PullTimeoutObj(source, 100),
    lambda source: PullTimeoutObj(source, 100, on_timeout="skip"),
    lambda source: PullWindowTimeoutObj(source, 1, 100),
]


@pytest.mark.parametrize("make", BACKGROUND_STREAMS)
async def test_law_3_pytest_failure_costs_one_item(make: Any) -> None:
    def fail(n: int) -> int:
        if n == 1:
            pytest.fail("no")
        return n

    stream = make(SourceIterObj(range(3)).map(fail))
    outcomes: list[Any] = []
    while True:
        try:
            outcomes.append(await anext(stream))
        except StopAsyncIteration:
            break
        except pytest.fail.Exception as error:
            outcomes.append(str(error))
    flat = [item[0] if isinstance(item, list) else item for item in outcomes]
    assert flat == [0, "no", 2]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("make", BACKGROUND_STREAMS)
def test_law_3_exit_reaches_a_waiting_pull(make: Any, kind: Any) -> None:
    """The stream continues when its loop is run again."""
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
def test_law_3_exit_is_not_kept_for_a_later_pull(kind: Any) -> None:
    stream = PullEagerObj(SourceIterObj(range(4)).map(raising(kind, 1)), 4)
    received: list[int] = []

    async def pull() -> None:
        async for n in stream:
            received.append(n)
            # Only the error ends this wait.
            await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(kind):
            loop.run_until_complete(pull())
        assert received == [0]

        async def rest() -> list[int]:
            return [n async for n in stream]

        assert loop.run_until_complete(rest()) == [2, 3]
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    finally:
        loop.close()


async def test_law_3_every_branch_of_a_tee_raises_it() -> None:
    left, right = SourceIterObj(range(3)).map(raising(OddError, 1)).tee(2)
    for branch in (left, right):
        assert await anext(branch) == 0
        with pytest.raises(OddError):
            await anext(branch)
        assert [n async for n in branch] == [2]


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("concurrent", [False, True])
async def test_error_of_a_fork_branch_affects_no_other(waits: bool, concurrent: bool) -> None:
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


async def test_fork_ends_every_sink() -> None:
    sinks = [Failing("end"), Failing(), Failing("end")]
    with pytest.raises(BaseExceptionGroup):
        await PushForkObj(sinks).return_()
    assert [len(sink.ends) for sink in sinks] == [1, 1, 1]


async def test_failing_end_still_ends_the_sink() -> None:
    sink = Failing([1])
    pipeline = PushMapObj[int, int](PushWindowObj(sink, 2), int)
    await pipeline.next(1)
    with pytest.raises(OddError):
        await pipeline.return_()
    assert sink.ends == [None]


async def test_end_of_a_timed_batch_delivers_other_lists() -> None:
    sink = Failing([0, 1], "end")
    window = PushWindowTimeoutObj(sink, 2, 100)
    for n in range(3):
        window.next_nowait(n)
    with pytest.raises(BaseExceptionGroup):
        await window.return_()
    assert sink.items == [[2]]
    assert sink.ends == [None]


async def test_list_that_fails_in_the_background_costs_itself() -> None:
    sink = Failing([0, 1])
    window = PushWindowTimeoutObj(sink, 2, 100)
    window.next_nowait(0)
    window.next_nowait(1)
    # The list is delivered in the background.
    await until(lambda: not window._window.lists)
    with pytest.raises(OddError):
        await window.next(2)
    await window.next(2)
    await window.next(3)
    assert sink.items == [[2, 3]]
    await window.return_()


async def test_bridge_delivers_to_the_other_sinks() -> None:
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


async def test_pool_pulls_again_after_a_source_error() -> None:
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


async def test_all_callbacks_of_a_graph_run() -> None:
    graph = DependencyGraph()
    notified: list[Any] = []

    def fail(*key: Any) -> None:
        raise OddError

    graph.on_ready(fail)
    graph.on_ready(lambda *key: notified.append(key))
    with pytest.raises(OddError):
        graph.add("a")
    assert notified


def test_exit_is_not_put_into_a_group() -> None:
    stop = KeyboardInterrupt()
    assert as_group([ValueError(1), stop], "several") is stop
    assert stop.__notes__ == ["several: ValueError(1)"]
    with pytest.raises(KeyboardInterrupt):
        raise_closing(asyncio.CancelledError(), [stop], "several")
