"""The cost of n sources, sinks, branches, nodes or tasks is proportional to n.

Work is counted where that is possible. Otherwise two sizes are timed, one ten times the other: linear work takes about ten times as
long, and quadratic work a hundred times.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    CapacitySource,
    DependencyGraph,
    HierarchicalBalancer,
    HierarchicalTaskPoolRunner,
    IteratorResult,
    PullLabeledRaceObj,
    PullRaceObj,
    PullZipObj,
    PushChain,
    PushForkObj,
    PushMapObj,
    PushPullBufferObj,
    PushSerialObj,
    SinkCollectObj,
    SinkNullObj,
    SinkObj,
    SourceBufferObj,
    SourceIterObj,
)
from tests.support import until, yield_to_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

# Linear work takes 10 times as long, quadratic work 100 times. A busy machine needs some margin between the two.
MAX_GROWTH = 40


class Stopwatch:
    """Measure the processor time of a part of a run."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        gc.collect()
        gc.disable()
        self._began = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self._began
        gc.enable()


def growth(run: Callable[[int, Stopwatch], Coroutine[Any, Any, None]], few: int) -> float:
    """Return the factor by which the time grows for ten times the number."""

    def best(number: int) -> float:
        times: list[float] = []
        for _ in range(3):
            watch = Stopwatch()
            asyncio.run(run(number, watch))
            times.append(watch.seconds)
        return min(times)

    return best(10 * few) / best(few)


@pytest.mark.parametrize("concurrent", [True, False])
def test_push_into_many_waiting_sinks_is_linear(
    concurrent: bool,
) -> None:
    async def run(number: int, watch: Stopwatch) -> None:
        buffers = [PushPullBufferObj[int](1) for _ in range(number)]
        fork = PushForkObj([buffer.sink for buffer in buffers], concurrent=concurrent)
        await fork.next(1)
        push = asyncio.ensure_future(fork.next(2))
        await yield_to_loop(4)
        with watch:
            for buffer in reversed(buffers):
                await anext(buffer.source)
            await push
        assert all(len(buffer) == 1 for buffer in buffers)

    assert growth(run, 1000) < MAX_GROWTH


def test_push_past_many_finished_sinks_is_linear() -> None:
    def fail(item: int) -> int:
        raise ValueError(item)

    async def run(number: int, watch: Stopwatch) -> None:
        full = [SinkCollectObj[int](maxsize=1) for _ in range(number)]
        other = SinkCollectObj[int]()
        fork = PushForkObj([*full, other, PushMapObj(SinkNullObj[int](), fail)])
        with pytest.raises(ValueError, match="1"):
            await fork.next(1)
        with watch, pytest.raises(ValueError, match="2") as caught:
            await fork.next(2)
        assert getattr(caught.value, "accepted_by") == (other,)  # noqa: B009 - it is no attribute of the class

    assert growth(run, 4000) < MAX_GROWTH


def test_accepted_by_compares_sinks_by_identity() -> None:
    class Choosy(SinkObj[int]):
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        async def next_impl(self, item: int) -> IteratorResult[Any]:
            return IteratorResult(None, False)

    def fail(item: int) -> int:
        raise ValueError(item)

    async def run() -> None:
        below = [Choosy() for _ in range(3)]
        fails = [PushMapObj(SinkNullObj[int](), fail) for _ in range(3)]
        fork = PushForkObj(
            [PushForkObj([one, other]) for one, other in zip(below, fails, strict=True)]
        )
        with pytest.raises(ExceptionGroup) as caught:
            await fork.next(1)
        assert list(map(id, getattr(caught.value, "accepted_by"))) == list(map(id, below))  # noqa: B009

    asyncio.run(run())


def test_row_of_many_waiting_sources_is_linear() -> None:
    async def run(number: int, watch: Stopwatch) -> None:
        buffers = [PushPullBufferObj[int]() for _ in range(number)]
        rows = PullZipObj(*(buffer.source for buffer in buffers))
        pull = asyncio.ensure_future(anext(rows))
        await yield_to_loop(4)
        with watch:
            for buffer in buffers:
                buffer.sink.next_nowait(1)
                await yield_to_loop(3)
            assert len(await pull) == number
        await rows.aclose()

    assert growth(run, 1000) < MAX_GROWTH


def test_row_ends_with_the_first_source_that_ends() -> None:
    async def run() -> None:
        buffers = [PushPullBufferObj[int]() for _ in range(5)]
        rows = PullZipObj(*(buffer.source for buffer in buffers))
        for number in (0, 1):
            buffers[number].sink.next_nowait(1)
        pull = asyncio.ensure_future(anext(rows, None))
        await yield_to_loop(4)
        await buffers[4].sink.return_()
        assert await asyncio.wait_for(pull, 10) is None

    asyncio.run(run())


def test_removing_one_of_many_sources_is_constant() -> None:
    async def run(number: int, watch: Stopwatch) -> None:
        sources = [iter([1]) for _ in range(number)]
        race = PullRaceObj(iter([0]), *sources)
        with watch:
            for source in reversed(sources):
                await race.remove(source)
        assert len(race.sources) == 1

    assert growth(run, 1000) < MAX_GROWTH


class Label:
    """A label that counts calls of its hash."""

    hash_calls = 0

    def __hash__(self) -> int:
        Label.hash_calls += 1
        return id(self) >> 4


def test_labelled_add_and_remove_hash_no_other_labels() -> None:
    async def run() -> None:
        race = PullLabeledRaceObj[Label, int]({Label(): iter([0])})
        labels = [Label() for _ in range(1000)]
        Label.hash_calls = 0
        for label in labels:
            race.add(label, SourceBufferObj([1]))
        for label in labels:
            await race.remove(label)
        assert Label.hash_calls < 20 * len(labels)
        assert len(race.sources) == 1

    asyncio.run(run())


def test_label_is_free_once_its_source_has_ended() -> None:
    async def run() -> None:
        race = PullLabeledRaceObj[str, int]({"given": SourceBufferObj([1])})
        race.add("added", SourceBufferObj([2]))
        with pytest.raises(ValueError, match="label is taken"):
            race.add("given", SourceBufferObj([3]))
        with pytest.raises(ValueError, match="label is taken"):
            race.add("added", SourceBufferObj([3]))
        assert sorted([await anext(race), await anext(race)]) == [("added", 2), ("given", 1)]
        lasting = PushPullBufferObj[int]()
        race.add("kept", lasting.source)
        pull = asyncio.ensure_future(anext(race))
        await yield_to_loop(4)
        assert list(race.sources) == ["kept"]
        # Labels of ended sources are free again, however many there were.
        for number in range(300):
            race.add("given", SourceBufferObj([number]))
            assert await pull == ("given", number)
            pull = asyncio.ensure_future(anext(race))
            await yield_to_loop(4)
            race.add(f"once {number}", SourceBufferObj[int]([]))
            await yield_to_loop(4)
        await race.remove("kept")
        with pytest.raises(StopAsyncIteration):
            await pull
        with pytest.raises(KeyError):
            await race.remove("kept")
        race.restart()
        assert list(race.sources) == ["given"]
        with pytest.raises(ValueError, match="label is taken"):
            race.add("given", SourceBufferObj([3]))
        await race.remove("given")

    asyncio.run(run())


def test_item_of_many_branches_is_linear() -> None:
    async def run(number: int, watch: Stopwatch) -> None:
        branches = SourceIterObj(range(10)).tee(number, maxsize=1, overflow="block")
        slow, *others = branches
        assert [await anext(branch) for branch in others] == [0] * len(others)
        with watch:
            # The slow branch has not received the first item, and the others have.
            waiting = [asyncio.ensure_future(anext(branch)) for branch in others]
            await yield_to_loop(4)
        assert await anext(slow) == 0
        assert await asyncio.gather(*waiting) == [1] * len(others)
        for branch in branches:
            await branch.aclose()

    assert growth(run, 1000) < MAX_GROWTH


def test_closing_many_branches_is_linear() -> None:
    async def run(number: int, watch: Stopwatch) -> None:
        source = SourceIterObj(range(10))
        branches = source.tee(number)
        with watch:
            for branch in branches:
                await branch.aclose()
        assert await anext(source, None) is None

    assert growth(run, 1000) < MAX_GROWTH


def test_snapshot_is_linear_in_nodes() -> None:
    async def run(number: int, watch: Stopwatch) -> None:
        root = CapacitySource(4)
        children = [CapacitySource(1, root) for _ in range(number)]
        with watch:
            shot = root.snapshot()
        assert len(shot.children) == len(children)
        assert shot.children[0].share_due == 1

    assert growth(run, 1000) < MAX_GROWTH


def test_balancer_reads_each_child_a_few_times() -> None:
    class Counting(CapacitySource):
        reads = 0

        @property
        def limits(self) -> Any:
            Counting.reads += 1
            return super().limits

    root = CapacitySource(10_000)
    busy = [Counting(5, root) for _ in range(100)]
    idle = [Counting(5, root) for _ in range(100)]
    leases = [child.acquire_nowait(5, owner=None) for child in busy]
    for bounds in ({"busy": (1, 5), "idle": (1, 5)}, {"busy": (1, 9), "idle": (5, 9)}):
        balancer = HierarchicalBalancer(
            dict[CapacitySource, tuple[float, float]](
                [(child, bounds["busy"]) for child in busy]
                + [(child, bounds["idle"]) for child in idle]
            ),
            idle_after=0,
            busy_after=0,
        )
        Counting.reads = 0
        assert balancer.balance(0) == {}
        assert Counting.reads < 10 * 200
    for lease in leases:
        assert lease is not None
        lease.release()


def test_many_new_dependencies_are_searched_once() -> None:
    async def run(number: int, watch: Stopwatch) -> None:
        graph = DependencyGraph(keep_open=True)
        graph.add_all([(each, each, [each - 1] if each else []) for each in range(number)])
        graph.add_all([(("other", each), each) for each in range(number)])
        with watch:
            graph.depend(0, *(("other", each) for each in range(number)))

    assert growth(run, 200) < MAX_GROWTH


def test_cancelling_a_queued_push_is_constant() -> None:
    async def run(number: int, watch: Stopwatch) -> None:
        buffer = PushPullBufferObj[int](1)
        serial = PushSerialObj(buffer.sink)
        await serial.next(0)
        pushes = [serial.next(each) for each in range(number)]
        for push in pushes:
            push.send(None)
        with watch:
            for push in reversed(pushes):
                push.close()
        assert not serial.closed

    assert growth(run, 1000) < MAX_GROWTH


@pytest.mark.parametrize("ordered", [True, False])
def test_reading_from_many_blocked_tasks_is_linear(
    ordered: bool,
) -> None:
    async def run(number: int, watch: Stopwatch) -> None:
        go = asyncio.Event()

        async def task() -> AsyncIterator[int]:
            await go.wait()
            for item in range(3):
                yield item

        runner = HierarchicalTaskPoolRunner(
            [task] * number,
            CapacitySource(number),
            max_buffered=8,
            ordered=ordered,
            window=number if ordered else None,
        )
        async with runner.run_tasks() as progress:
            await until(lambda: runner.snapshot().running == number)
            go.set()
            await yield_to_loop(4)
            with watch:
                values = [envelope.value async for envelope in progress]
        assert len(values) == 4 * number
        assert values[:4] == [0, 1, 2, None] or not ordered

    assert growth(run, 200) < MAX_GROWTH


def test_cancelling_many_blocked_tasks_is_linear() -> None:
    async def run(number: int, watch: Stopwatch) -> None:
        go = asyncio.Event()

        async def task() -> AsyncIterator[int]:
            await go.wait()
            while True:
                yield 1

        runner = HierarchicalTaskPoolRunner([task] * number, CapacitySource(number), max_buffered=8)
        async with runner.run_tasks() as progress:
            await until(lambda: runner.snapshot().running == number)
            go.set()
            await yield_to_loop(4)
            with watch:
                for task_id in range(number, 0, -1):
                    assert runner.cancel(task_id)
                await yield_to_loop(4)
            assert len([envelope async for envelope in progress]) >= number

    assert growth(run, 1000) < MAX_GROWTH


def test_repr_of_a_chain_is_constant() -> None:
    async def run(number: int, watch: Stopwatch) -> None:
        chain: Any = PushChain.start(int)
        for _ in range(number):
            chain = chain.map(abs)
        text = repr(chain)
        with watch:
            for _ in range(100):
                repr(chain)
        assert text.startswith(f"<PushChain of {number}: PushMapObj | ")

    assert growth(run, 1000) < 5
