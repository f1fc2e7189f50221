"""`PushChain`, which builds pipelines from the top."""

from __future__ import annotations

from typing import Any, assert_type

import pytest

from headrace import IteratorResult, PushChain, PushObj, SinkCollectObj
from tests.push_support import collectors
from tests.support import wrong


async def test_chain_builds_pipeline_from_the_top() -> None:
    sink: SinkCollectObj[str] = SinkCollectObj()
    pipeline = PushChain.start().filter(is_even).map(str).into(sink)
    for n in range(5):
        await pipeline.next(n)
    await pipeline.return_()
    assert sink.buffer == ["0", "2", "4"]
    assert sink.closed


def is_even(n: int) -> bool:
    return n % 2 == 0


async def half(n: int) -> float:
    return n / 2


async def test_chain_has_every_operator() -> None:
    sink: SinkCollectObj[Any] = SinkCollectObj()
    called: list[Any] = []
    pipeline = (
        PushChain.start(int)
        .serial()
        .dedupe(key=lambda n: n)
        .tap(before=called.append)
        .flat_map(lambda n: [n, n])
        .accumulate(lambda a, b: a + b, 0)
        .batch(2)
        .flatten()
        .take(5)
        .batch(2, 10)
        .into(sink)
    )
    for n in (1, 1, 2, 3):
        await pipeline.next(n)
    await pipeline.return_()
    assert sink.buffer == [[1, 2], [4, 6], [9]]
    assert called == [1, 2, 3]


async def test_chain_is_immutable_and_reusable() -> None:
    chain = PushChain.start(int).batch(2)
    longer = chain.map(len)
    assert repr(chain) == "<PushChain of 1: PushWindowObj>"
    assert repr(longer) == "<PushChain of 2: PushWindowObj | PushMapObj>"
    assert repr(PushChain.start()) == "<PushChain of 0: nothing yet>"
    sinks = collectors(3)
    pipelines = [chain.into(sinks[0]), chain.into(sinks[1]), longer.into(sinks[2])]
    await pipelines[0].next(1)
    await pipelines[1].next(2)
    await pipelines[1].next(3)
    await pipelines[2].next(4)
    for pipeline in pipelines:
        await pipeline.return_()
    assert [sink.buffer for sink in sinks] == [[[1]], [[2, 3]], [1]]


async def test_chains_end_in_several_sinks() -> None:
    sinks = collectors(6)
    branch = PushChain.start(int).map(str).into(sinks[1])
    pipeline = PushChain.start().filter(is_even).fork(sinks[0], branch, concurrent=False)
    chosen = PushChain.start(int).distribute(lambda n: n % 2, sinks[2], pipeline)
    ring = PushChain.start(int).round_robin(sinks[3], chosen)
    labeled = PushChain.start(int).distribute_labeled(lambda _: "x", {"y": sinks[4]}, ring)
    for n in range(8):
        await labeled.next(n)
    await labeled.return_()
    assert [sink.buffer for sink in sinks] == [[], [], [], [0, 2, 4, 6], [], []]
    assert [sink.closed for sink in sinks] == [True] * 5 + [False]
    direct = PushChain.start(int).fork(sinks[5])
    await direct.next(1)
    assert sinks[5].buffer == [1]


async def test_empty_chain_wraps_foreign_sink() -> None:
    class Plain:
        def __init__(self) -> None:
            self.calls: list[Any] = []

        async def next(self, item: int) -> IteratorResult[Any]:
            self.calls.append(item)
            return IteratorResult(None, False)

        async def return_(self, value: Any = None) -> IteratorResult[Any]:
            self.calls.append("end")
            return IteratorResult(value, True)

        async def throw(self, error: BaseException) -> IteratorResult[Any]:
            raise error

    plain = Plain()
    async with PushChain.start().into(plain) as pipeline:
        await pipeline.next(1)
    assert plain.calls == [1, "end"]


async def test_law_17_chain_of_ten_thousand() -> None:
    chain = PushChain.start(int)
    for _ in range(10_000):
        chain = chain.map(lambda n: n + 1)
    sink: SinkCollectObj[int] = SinkCollectObj()
    await chain.into(sink).next(0)
    assert sink.buffer == [10_000]


def test_law_14_chain_checks_input_at_each_call() -> None:
    with pytest.raises(TypeError, match=r"transform must be callable, got 3 \(int\)"):
        PushChain.start().map(wrong(3))
    with pytest.raises(ValueError, match="size must be at least 1"):
        PushChain.start().batch(0)
    with pytest.raises(TypeError, match="sink must be a push object"):
        PushChain.start().into(wrong(PushChain.start()))


def check_types() -> None:
    """Checked by type checkers, never run."""
    sink: SinkCollectObj[str] = SinkCollectObj()
    floats: SinkCollectObj[float] = SinkCollectObj()
    lists: SinkCollectObj[list[int]] = SinkCollectObj()
    assert_type(PushChain.start().filter(is_even), PushChain[int, int])
    assert_type(PushChain.start(int).filter(is_even).map(str), PushChain[int, str])
    assert_type(PushChain.start().filter(is_even).map(half), PushChain[int, float])
    assert_type(PushChain.start().filter(is_even).map(str).into(sink), PushObj[int])
    assert_type(PushChain.start(int).map(half).fork(floats, floats), PushObj[int])
    assert_type(PushChain.start(int).batch(3).into(lists), PushObj[int])
    assert_type(PushChain.start().map(half).distribute(int, floats), PushObj[int])
    assert_type(PushChain.start().map(half).round_robin(floats), PushObj[int])
    PushChain.start(int).map(half).into(sink)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
