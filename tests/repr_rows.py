"""The objects of which tests check the `repr`, one row per exported class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace import (
    SKIP,
    AdaptiveLimit,
    AsyncIteratorCombiner,
    Breaker,
    Budget,
    Cache,
    CapacitySource,
    DependencyGraph,
    DependencySourceObj,
    DependencyState,
    EnvelopeType,
    Failure,
    Final,
    HierarchicalBalancer,
    HierarchicalTaskPoolRunner,
    IteratorResult,
    Journal,
    LruStore,
    PriorityDependencySourceObj,
    PrioritySourceObj,
    ProcessExecutor,
    PullBufferObj,
    PullCallbackObj,
    PullCatchObj,
    PullConcatObj,
    PullDedupeObj,
    PullEagerObj,
    PullFilterObj,
    PullFlatMapObj,
    PullFlattenObj,
    PullGateObj,
    PullInOrderObj,
    PullJournalObj,
    PullLabeledRaceObj,
    PullLabeledRaceRobinObj,
    PullLabeledRoundRobinObj,
    PullLabeledZipObj,
    PullMapObj,
    PullObj,
    PullObj1To1Link,
    PullPushBridgeObj,
    PullPushDistributeObj,
    PullRaceCutoffObj,
    PullRaceObj,
    PullRaceRobinObj,
    PullReduceObj,
    PullRoundRobinObj,
    PullSkipObj,
    PullSkipWhileObj,
    PullTakeObj,
    PullTakeWhileObj,
    PullThrottleObj,
    PullTimeoutObj,
    PullTimerObj,
    PullWindowObj,
    PullWindowTimeoutObj,
    PullZipObj,
    PushBufferObj,
    PushCallbackObj,
    PushChain,
    PushDedupeObj,
    PushDistributeObj,
    PushFilterObj,
    PushFlatMapObj,
    PushFlattenObj,
    PushForkObj,
    PushLabeledDistributeObj,
    PushMapObj,
    PushObj,
    PushObj1To1Link,
    PushPullBufferObj,
    PushPullObj,
    PushReduceObj,
    PushRoundRobinObj,
    PushSerialObj,
    PushSignalObj,
    PushTakeObj,
    PushWindowObj,
    PushWindowTimeoutObj,
    QuotaCapacitySource,
    Rate,
    RayExecutor,
    Retry,
    SinkCallbackObj,
    SinkCapacityObj,
    SinkCollectObj,
    SinkJournal,
    SinkNullObj,
    SinkObj,
    SinkWriterObj,
    SourceBufferObj,
    SourceCacheObj,
    SourceCapacityObj,
    SourceIterObj,
    SourceLinesObj,
    SourceObj,
    Task,
    Verdict,
    WaitObject,
)
from headrace.testing import RecordingSink, VirtualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def parse(item: Any) -> Any:
    return item


def add(left: Any, right: Any) -> Any:
    return left + right


def source() -> PullObj[Any]:
    return SourceIterObj([1, 2, 3])


def sink() -> SinkCollectObj[Any]:
    return SinkCollectObj()


def graph() -> DependencyGraph:
    obj = DependencyGraph()
    obj.add("a", 1)
    obj.add("b", 2, depends_on=["a"])
    return obj


def capacity() -> CapacitySource:
    return CapacitySource(3, name="fetches")


def runner() -> HierarchicalTaskPoolRunner:
    return HierarchicalTaskPoolRunner(source(), capacity(), name="pool")


class Own(PullObj[int]):
    async def pull_impl(self) -> AsyncIterator[int]:
        yield 1


ROWS: dict[str, tuple[Callable[[], Any], str]] = {
    "AsyncIteratorCombiner": (
        lambda: AsyncIteratorCombiner([1], [2]),
        "<AsyncIteratorCombiner: 2 sources, idle>",
    ),
    "AdaptiveLimit": (
        lambda: AdaptiveLimit(10, 1, 100),
        "AdaptiveLimit(start=10, minimum=1, maximum=100)",
    ),
    "Breaker": (
        lambda: Breaker(3),
        "Breaker(failures=3, minimum=20, window=30.0, open_for=30.0, probes=1)",
    ),
    "Budget": (lambda: Budget(5), "Budget(amount=5)"),
    "Cache": (
        lambda: Cache(LruStore(3), key=parse),
        "<Cache: <LruStore: 0 of 3 entries>, 0 hits, 0 misses, open>",
    ),
    "CapacitySource": (capacity, "<CapacitySource 'fetches': 0 of 3 slots, open>"),
    "DependencyGraph": (graph, "<DependencyGraph: 1 pending, 1 ready>"),
    "DependencySourceObj": (
        lambda: DependencySourceObj(graph()),
        "<DependencySourceObj: 1 ready, open>",
    ),
    "DependencyState": (lambda: DependencyState.READY, repr(DependencyState.READY)),
    "Failure": (
        lambda: Failure(1, "a", ValueError("no"), 2),
        "Failure(index=1, item='a', error=ValueError('no'), attempts=2)",
    ),
    "EnvelopeType": (lambda: EnvelopeType.FINAL, repr(EnvelopeType.FINAL)),
    "Final": (lambda: Final(1), "Final(value=1)"),
    "ProcessExecutor": (lambda: ProcessExecutor(2), "<ProcessExecutor: 0 of 2 workers ready>"),
    "RayExecutor": (lambda: RayExecutor(workers=2), "<RayExecutor: 0 hosts, 0 slots>"),
    "HierarchicalBalancer": (
        lambda: HierarchicalBalancer({capacity(): (1, 4)}),
        "<HierarchicalBalancer: moves 1 limit, idle>",
    ),
    "HierarchicalTaskPoolRunner": (runner, "<HierarchicalTaskPoolRunner 'pool': idle>"),
    "Journal": (lambda: Journal("a.journal"), "<Journal: 'a.journal', closed>"),
    "LruStore": (lambda: LruStore(3), "<LruStore: 0 of 3 entries>"),
    "IteratorResult": (lambda: IteratorResult(1, False), "IteratorResult(value=1, done=False)"),
    "Lease": (lambda: capacity().acquire_nowait(2), "<Lease of 2 slots of 'fetches'>"),
    "PriorityDependencySourceObj": (
        lambda: PriorityDependencySourceObj(graph()),
        "<PriorityDependencySourceObj: 1 ready, open>",
    ),
    "PrioritySourceObj": (PrioritySourceObj, "<PrioritySourceObj: 0 of 1024 items, open>"),
    "PullBufferObj": (
        lambda: PullBufferObj(source(), parse),
        "<PullBufferObj: calls parse, 0 gathered, open>",
    ),
    "PullCallbackObj": (
        lambda: PullCallbackObj(source(), parse, print, repr, len),
        "<PullCallbackObj: calls parse and print and repr and 1 more, open>",
    ),
    "PullCatchObj": (lambda: PullCatchObj(source(), parse), "<PullCatchObj: calls parse, open>"),
    "PullConcatObj": (lambda: PullConcatObj([1], [2]), "<PullConcatObj: 2 sources, open>"),
    "PullDedupeObj": (lambda: PullDedupeObj(source()), "<PullDedupeObj: 0 remembered, open>"),
    "PullEagerObj": (lambda: PullEagerObj(source(), 4), "<PullEagerObj: 0 of 4 ahead, open>"),
    "PullFilterObj": (lambda: PullFilterObj(source(), parse), "<PullFilterObj: calls parse, open>"),
    "PullFlatMapObj": (
        lambda: PullFlatMapObj(source(), parse),
        "<PullFlatMapObj: calls parse, open>",
    ),
    "PullFlattenObj": (lambda: PullFlattenObj([[1]]), "<PullFlattenObj: open>"),
    "PullGateObj": (
        lambda: PullGateObj(source(), WaitObject()),
        "<PullGateObj: waits for its signal, open>",
    ),
    "PullInOrderObj": (
        lambda: PullInOrderObj(source(), parse),
        "<PullInOrderObj: calls parse, 0 of 1024 held, open>",
    ),
    "PullLabeledRaceObj": (
        lambda: PullLabeledRaceObj({"a": [1]}),
        "<PullLabeledRaceObj: 1 source, open>",
    ),
    "PullLabeledRaceRobinObj": (
        lambda: PullLabeledRaceRobinObj({"a": [1]}),
        "<PullLabeledRaceRobinObj: 1 source, open>",
    ),
    "PullLabeledRoundRobinObj": (
        lambda: PullLabeledRoundRobinObj({"a": [1]}),
        "<PullLabeledRoundRobinObj: 1 source, open>",
    ),
    "PullLabeledZipObj": (
        lambda: PullLabeledZipObj({"a": [1]}),
        "<PullLabeledZipObj: 1 source, open>",
    ),
    "PullMapObj": (
        lambda: PullMapObj(source(), parse, concurrency=4),
        "<PullMapObj: 0 of 4 calls run, calls parse, open>",
    ),
    "PullObj": (Own, "<Own: open>"),
    "PullObj1To1Link": (lambda: PullObj1To1Link(source()), "<PullObj1To1Link: open>"),
    "PullPushBridgeObj": (
        lambda: PullPushBridgeObj(source(), sink()),
        "<PullPushBridgeObj: 1 sink, open>",
    ),
    "PullPushDistributeObj": (
        lambda: PullPushDistributeObj(source(), [sink(), sink()], parse),
        "<PullPushDistributeObj: 2 sinks, open>",
    ),
    "PullRaceCutoffObj": (
        lambda: PullRaceCutoffObj([[1]], [[2]]),
        "<PullRaceCutoffObj: 1 source, open>",
    ),
    "PullRaceObj": (lambda: PullRaceObj([1], [2]), "<PullRaceObj: 2 sources, open>"),
    "PullRaceRobinObj": (lambda: PullRaceRobinObj([1], [2]), "<PullRaceRobinObj: 2 sources, open>"),
    "PullReduceObj": (lambda: PullReduceObj(source(), add), "<PullReduceObj: calls add, open>"),
    "PullRoundRobinObj": (
        lambda: PullRoundRobinObj([1], [2]),
        "<PullRoundRobinObj: 2 sources, open>",
    ),
    "PullSkipObj": (lambda: PullSkipObj(source(), 2), "<PullSkipObj: size 2, open>"),
    "PullSkipWhileObj": (
        lambda: PullSkipWhileObj(source(), parse),
        "<PullSkipWhileObj: calls parse, open>",
    ),
    "PullTakeObj": (lambda: PullTakeObj(source(), 2), "<PullTakeObj: size 2, open>"),
    "PullTakeWhileObj": (
        lambda: PullTakeWhileObj(source(), parse),
        "<PullTakeWhileObj: calls parse, open>",
    ),
    "PullThrottleObj": (
        lambda: PullThrottleObj(source(), 5, per=60),
        "<PullThrottleObj: 5.0 in 60.0 s, open>",
    ),
    "PullTimeoutObj": (
        lambda: PullTimeoutObj(source(), 2.0),
        "<PullTimeoutObj: within 2.0 s, 0 held, open>",
    ),
    "PullTimerObj": (
        lambda: PullTimerObj(2.0, count=3),
        "<PullTimerObj: every 2.0 s, 3 times, open>",
    ),
    "PullWindowObj": (lambda: PullWindowObj(source(), 3), "<PullWindowObj: 0 of 3 gathered, open>"),
    "PullWindowTimeoutObj": (
        lambda: PullWindowTimeoutObj(source(), 3, 2.0),
        "<PullWindowTimeoutObj: 0 of 3 gathered, for 2.0 s, open>",
    ),
    "PullZipObj": (lambda: PullZipObj([1], [2]), "<PullZipObj: 2 sources, open>"),
    "PushBufferObj": (
        lambda: PushBufferObj(sink(), parse),
        "<PushBufferObj: calls parse, 0 gathered, open>",
    ),
    "PushCallbackObj": (
        lambda: PushCallbackObj(sink(), before=parse, after=print),
        "<PushCallbackObj: calls parse before, calls print after, open>",
    ),
    "PushChain": (lambda: PushChain.start().map(parse), "<PushChain of 1: PushMapObj>"),
    "PushDedupeObj": (lambda: PushDedupeObj(sink()), "<PushDedupeObj: 0 remembered, open>"),
    "PushDistributeObj": (
        lambda: PushDistributeObj([sink(), sink()], parse),
        "<PushDistributeObj: 2 sinks, open>",
    ),
    "PushFilterObj": (lambda: PushFilterObj(sink(), parse), "<PushFilterObj: calls parse, open>"),
    "PushFlatMapObj": (
        lambda: PushFlatMapObj(sink(), parse),
        "<PushFlatMapObj: calls parse, open>",
    ),
    "PushFlattenObj": (lambda: PushFlattenObj(sink()), "<PushFlattenObj: open>"),
    "PushForkObj": (lambda: PushForkObj([sink(), sink()]), "<PushForkObj: 2 sinks, open>"),
    "PushLabeledDistributeObj": (
        lambda: PushLabeledDistributeObj({"a": sink()}, parse),
        "<PushLabeledDistributeObj: 1 sink, open>",
    ),
    "PushMapObj": (lambda: PushMapObj(sink(), parse), "<PushMapObj: calls parse, open>"),
    "PushObj": (PushObj, "<PushObj: open>"),
    "PushObj1To1Link": (lambda: PushObj1To1Link(sink()), "<PushObj1To1Link: open>"),
    "PushPullBufferObj": (
        lambda: PushPullBufferObj(3),
        "<PushPullBufferObj: 0 of 3 items, open>",
    ),
    "PushPullObj": (
        lambda: PushPullObj(sink(), source()),
        "<PushPullObj: into SinkCollectObj, out of SourceIterObj>",
    ),
    "PushReduceObj": (lambda: PushReduceObj(sink(), add), "<PushReduceObj: calls add, open>"),
    "PushRoundRobinObj": (
        lambda: PushRoundRobinObj([sink(), sink()]),
        "<PushRoundRobinObj: 2 sinks, open>",
    ),
    "PushSerialObj": (lambda: PushSerialObj(sink()), "<PushSerialObj: open>"),
    "PushSignalObj": (
        lambda: PushSignalObj(sink(), WaitObject()),
        "<PushSignalObj: resolves after, open>",
    ),
    "PushTakeObj": (lambda: PushTakeObj(sink(), 2), "<PushTakeObj: size 2, open>"),
    "PushWindowObj": (lambda: PushWindowObj(sink(), 2), "<PushWindowObj: 0 of 2 gathered, open>"),
    "PushWindowTimeoutObj": (
        lambda: PushWindowTimeoutObj(sink(), 2, 1.5),
        "<PushWindowTimeoutObj: 0 of 2 gathered, for 1.5 s, open>",
    ),
    "QuotaCapacitySource": (
        lambda: QuotaCapacitySource({"requests": Rate(500), "dollars": Budget(3)}),
        "<QuotaCapacitySource: 0 of 500 requests in 60.0 s, 0 of 3 dollars, open>",
    ),
    "Rate": (lambda: Rate(5), "Rate(amount=5, per=60.0, burst=None)"),
    "Retry": (
        lambda: Retry(retries=2, backoff=1, factor=2, max_backoff=9),
        "<Retry: 2 retries, from 1.0 s by 2.0 to 9.0 s>",
    ),
    "SinkCallbackObj": (lambda: SinkCallbackObj(parse), "<SinkCallbackObj: calls parse, open>"),
    "SinkCapacityObj": (
        lambda: SinkCapacityObj(sink(), capacity()),
        "<SinkCapacityObj: under 'fetches', open>",
    ),
    "SinkCollectObj": (lambda: SinkCollectObj(3), "<SinkCollectObj: 0 of 3 items, open>"),
    "SinkNullObj": (SinkNullObj, "<SinkNullObj: open>"),
    "SinkObj": (SinkObj, "<SinkObj: open>"),
    "PullJournalObj": (
        lambda: PullJournalObj("a.journal"),
        "<PullJournalObj: of 'a.journal', open>",
    ),
    "SinkJournal": (
        lambda: SinkJournal("a.journal"),
        "<SinkJournal: <Journal: 'a.journal', closed>, open>",
    ),
    "SinkWriterObj": (lambda: SinkWriterObj("out.jsonl"), "<SinkWriterObj: 'out.jsonl', open>"),
    "Skip": (lambda: SKIP, "SKIP"),
    "SourceBufferObj": (lambda: SourceBufferObj([1, 2]), "<SourceBufferObj: 2 items, open>"),
    "SourceCacheObj": (lambda: SourceCacheObj(1), "<SourceCacheObj: open>"),
    "SourceCapacityObj": (
        lambda: SourceCapacityObj(source(), CapacitySource(2)),
        "<SourceCapacityObj: under a capacity, open>",
    ),
    "SourceIterObj": (source, "<SourceIterObj: of list, open>"),
    "SourceLinesObj": (lambda: SourceLinesObj("in.txt"), "<SourceLinesObj: 'in.txt', open>"),
    "SourceObj": (SourceObj, "<SourceObj: open>"),
    "Task": (lambda: Task(parse, 1, key="one"), "<Task: 'one', calls parse>"),
    "Verdict": (
        lambda: Verdict("fatal", reason="401 of openai"),
        "Verdict(kind='fatal', delay=None, reason='401 of openai')",
    ),
    "WaitObject": (WaitObject, "<WaitObject: 0 waiting, open>"),
    # Not exported by the top-level package.
    "BufferSink": (lambda: PushPullBufferObj(3).sink, "<the sink of a buffer: 0 of 3 items, open>"),
    "BufferSource": (
        lambda: PushPullBufferObj().source,
        "<the source of a buffer: 0 items, open>",
    ),
    "PullBranchObj": (lambda: source().tee(2)[0], "<PullBranchObj: 0 of 1024 behind, open>"),
    "PullMapPoolObj": (
        lambda: source().map_pool(parse, capacity()),
        "<PullMapPoolObj: 0 running, 0 unread, open>",
    ),
    "TaskRun": (lambda: runner().run_tasks(), "<TaskRun: of 'pool', not started>"),
    "RecordingSink": (RecordingSink, "<RecordingSink: 0 items, open>"),
    "VirtualClock": (VirtualClock, "<VirtualClock: at 0.000000 s>"),
    "Pull": (lambda: anext(source()), "<Pull: not begun>"),
    "Push": (lambda: sink().next(1), "<Push: not begun>"),
    "Acquire": (lambda: capacity().acquire(), "<Acquire: not begun>"),
}


# Dataclasses and exceptions that show all of their values, classes that users do not create, and one whose objects need a file.
PLAIN = {
    "BreakerState",
    "CacheStats",
    "CacheStore",
    "CapacitySnapshot",
    "Cooldown",
    "DependencyNode",
    "PoolSnapshot",
    "OutcomeListener",
    "SqliteStore",
    "TaskProgressEnvelope",
}
