"""Every public class under `copy.copy`, `copy.deepcopy` and `pickle`: values are copied, all others refuse all three."""

from __future__ import annotations

import contextvars
import copy
import pickle
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import headrace
import headrace.capacity
import headrace.pool
import headrace.queue
import headrace.testing
import headrace.testing.executors
from headrace import (
    SKIP,
    AdaptiveLimit,
    AsyncIteratorCombiner,
    Breaker,
    BreakerState,
    BrokenError,
    Budget,
    BudgetExhausted,
    Cache,
    CacheStats,
    CacheStore,
    CapacitySnapshot,
    CapacitySource,
    ClosedError,
    Cooldown,
    CycleError,
    DeadlockWarning,
    DependencyGraph,
    DependencyNode,
    DependencySourceObj,
    DependencyState,
    EnvelopeType,
    Failure,
    Final,
    ForkError,
    HeadraceError,
    HierarchicalBalancer,
    HierarchicalTaskPoolRunner,
    IteratorResult,
    Journal,
    JournalError,
    JournalStopped,
    JournalWarning,
    Lease,
    LruStore,
    MapError,
    NotSendable,
    OrderError,
    OutcomeListener,
    PoolSnapshot,
    PriorityDependencySourceObj,
    PrioritySourceObj,
    ProcessExecutor,
    PullObj,
    PushChain,
    PushObj,
    PushPullBufferObj,
    PushPullObj,
    QuotaCapacitySource,
    Rate,
    RayExecutor,
    RecordedError,
    RemoteError,
    Retry,
    RunStopped,
    SinkNullObj,
    SinkObj,
    Skip,
    SourceCancelledError,
    SourceIterObj,
    SourceObj,
    SqliteStore,
    StallWarning,
    StoreError,
    Task,
    TaskProgressEnvelope,
    ThrottledError,
    Verdict,
    WaitObject,
    WorkerLost,
    WouldBlock,
    WouldDeadlock,
    WrongLoopError,
)
from headrace.errors import OrderTypeError
from headrace.pool import (
    CancelResult,
    CancelSupport,
    Capabilities,
    Executor,
    Handle,
    Listener,
    LoopExecutor,
    NodeUse,
    RemoteLease,
    RunnerOptions,
    Submission,
    TaskRun,
    ThreadExecutor,
)
from headrace.queue import LifoQueue, PriorityQueue, Queue, QueueEmpty, QueueFull, QueueShutDown
from headrace.testing import (
    AtTime,
    DeadlockError,
    Delay,
    Forever,
    MarbleError,
    Outcome,
    Raise,
    RecordingSink,
    ScriptedSource,
    Step,
    SweepError,
    VirtualClock,
    Yields,
)
from headrace.testing.executors import CASES, Case, MakeExecutor

if TYPE_CHECKING:
    from collections.abc import Callable


def pickled(protocol: int, thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing, protocol))  # noqa: S301 - pickled in the same line


COPIERS: dict[str, Callable[[Any], Any]] = {"copy": copy.copy, "deepcopy": copy.deepcopy}
for number in range(pickle.HIGHEST_PROTOCOL + 1):
    COPIERS[f"pickle {number}"] = partial(pickled, number)


def same(item: Any) -> Any:
    return item


def same_kind(error: Exception) -> Verdict:
    return Verdict("transient", len(error.args))


def node() -> Any:
    graph = DependencyGraph()
    graph.add_all([("a", [1], []), ("b", 2, ["a"])])
    return graph["b"]


def outcome() -> Any:
    values: dict[str, Any] = dict.fromkeys(Outcome.__dataclass_fields__)
    return Outcome(**values)


def attributes(thing: Any) -> list[Any]:
    """Return the public attributes of an object; errors among them as their type and arguments."""
    names = [name for name in dir(thing) if not name.startswith("_") and name != "context"]
    found: list[Any] = []
    for name in names:
        try:
            value = getattr(thing, name)
        except AttributeError:
            value = "none"
        if isinstance(value, BaseException):
            value = (type(value), value.args)
        if not callable(value) or isinstance(value, type):
            found.append((name, value))
    return found


@dataclass
class Value:
    """A class whose objects can be copied: how to make one, and how to compare a copy with it."""

    make: Callable[[], Any]
    is_equal: Callable[[Any, Any], object] = lambda one, other: one == other


def equal_by_attributes(one: Any, other: Any) -> bool:
    return type(one) is type(other) and attributes(one) == attributes(other)


def error(make: Callable[[], BaseException]) -> Value:
    def made() -> BaseException:
        raised = make()
        raised.add_note("a note")
        vars(raised)["more"] = [1]
        return raised

    def is_equal(one: BaseException, other: BaseException) -> bool:
        return equal_by_attributes(one, other) and (one.args, one.__notes__, vars(one)["more"]) == (
            other.args,
            other.__notes__,
            vars(other)["more"],
        )

    return Value(made, is_equal)


def lease() -> Any:
    taken = CapacitySource(1).acquire_nowait(owner=None)
    assert taken is not None
    # A lease that is not released would warn when it is dropped.
    taken.release()
    return taken


def snapshot() -> Any:
    return HierarchicalTaskPoolRunner([], CapacitySource(3, name="a")).snapshot()


VALUES: dict[type, Value] = {
    Budget: Value(lambda: Budget(3)),
    CapacitySnapshot: Value(lambda: CapacitySource({"a": 3, "b": Rate(2, 1)}, name="x").snapshot()),
    CacheStats: Value(lambda: CacheStats(1, 2, 3, 4)),
    Cooldown: Value(lambda: Cooldown(None, 1.5, 1, 2)),
    DependencyNode: Value(node),
    Failure: Value(
        lambda: Failure(1, ["a"], ValueError("no"), 2),
        lambda one, other: (
            (one.index, one.item, one.error.args, one.attempts)
            == (other.index, other.item, other.error.args, other.attempts)
        ),
    ),
    MapError: Value(
        lambda: MapError("1 of 2 calls failed", [ValueError("no")], ["a"]),
        lambda one, other: (str(one), one.results) == (str(other), other.results),
    ),
    Final: Value(lambda: Final([1])),
    IteratorResult: Value(lambda: IteratorResult([1], True)),
    PoolSnapshot: Value(snapshot),
    NodeUse: Value(lambda: snapshot().capacity[0]),
    Breaker: Value(lambda: Breaker(3)),
    BreakerState: Value(lambda: BreakerState("open", 1.5, 2.5, 0, 0, 0)),
    AdaptiveLimit: Value(lambda: AdaptiveLimit(10, 1, 100)),
    Rate: Value(lambda: Rate(3, 2.0, burst=5)),
    Retry: Value(
        lambda: Retry(
            5, (ValueError, KeyError), 1, 3, 9, False, classify=same_kind, random=random.Random(7)
        )
    ),
    Task: Value(
        lambda: Task(same, [1], key="k", cost={"a": 2}, priority=3, timeout=4.0),
        equal_by_attributes,
    ),
    TaskProgressEnvelope: Value(
        lambda: TaskProgressEnvelope(1, "k", EnvelopeType.FINAL, [2], None, 1, 0.5, 0.6, 0.7)
    ),
    Verdict: Value(lambda: Verdict("throttled", 2.5, "429 of openai")),
    Capabilities: Value(lambda: LoopExecutor().capabilities),
    Outcome: Value(outcome, equal_by_attributes),
    Step: Value(Step),
    AtTime: Value(lambda: AtTime(1)),
    Delay: Value(lambda: Delay(1)),
    Forever: Value(Forever),
    Raise: Value(lambda: Raise(ValueError(1)), equal_by_attributes),
    Yields: Value(lambda: Yields(2)),
    DependencyState: Value(lambda: DependencyState.READY, lambda one, other: one is other),
    EnvelopeType: Value(lambda: EnvelopeType.ERROR, lambda one, other: one is other),
    Skip: Value(lambda: SKIP, lambda one, other: one is other),
    CancelSupport: Value(lambda: next(iter(CancelSupport)), lambda one, other: one is other),
    CancelResult: Value(lambda: CancelResult.STOPPED, lambda one, other: one is other),
    BrokenError: error(lambda: BrokenError("b")),
    BudgetExhausted: error(lambda: BudgetExhausted("b")),
    ClosedError: error(lambda: ClosedError("c", item=[1])),
    CycleError: error(lambda: CycleError("c", cycle=("a", "b", "a"))),
    DeadlockWarning: error(lambda: DeadlockWarning("d")),
    ForkError: error(lambda: ForkError("f")),
    HeadraceError: error(lambda: HeadraceError("h", 1)),
    JournalError: error(lambda: JournalError("j")),
    JournalStopped: error(lambda: JournalStopped("j")),
    JournalWarning: error(lambda: JournalWarning("j")),
    NotSendable: error(lambda: NotSendable("n")),
    RecordedError: error(lambda: RecordedError("ValueError", "r")),
    RemoteError: error(lambda: RemoteError("ValueError", "r")),
    OrderError: error(lambda: OrderError("o", item=1)),
    OrderTypeError: error(lambda: OrderTypeError("o", item=1)),
    SourceCancelledError: error(lambda: SourceCancelledError("s")),
    StallWarning: error(lambda: StallWarning("s")),
    StoreError: error(lambda: StoreError("s")),
    RunStopped: error(lambda: RunStopped("s")),
    ThrottledError: error(lambda: ThrottledError("t")),
    WorkerLost: error(lambda: WorkerLost("w", started=False, confirmed="exit", where="h")),
    WouldBlock: error(lambda: WouldBlock("w")),
    WouldDeadlock: error(lambda: WouldDeadlock("w")),
    WrongLoopError: error(lambda: WrongLoopError("w")),
    QueueEmpty: error(lambda: QueueEmpty("q")),
    QueueShutDown: error(QueueShutDown),
    QueueFull: error(lambda: QueueFull("q")),
    DeadlockError: error(lambda: DeadlockError("d")),
    MarbleError: error(lambda: MarbleError("m")),
    SweepError: error(lambda: SweepError("s")),
}


STATEFUL: dict[type, Callable[[], Any]] = {
    AsyncIteratorCombiner: lambda: AsyncIteratorCombiner([1]),
    Cache: lambda: Cache(LruStore(1), key=str),
    Case: lambda: CASES[0],
    LruStore: lambda: LruStore(1),
    # Without a file: its class refuses.
    SqliteStore: lambda: SqliteStore.__new__(SqliteStore),
    CapacitySource: lambda: CapacitySource(1),
    QuotaCapacitySource: lambda: QuotaCapacitySource(Rate(1)),
    DependencyGraph: DependencyGraph,
    HierarchicalBalancer: lambda: HierarchicalBalancer(
        {CapacitySource(2, parent=CapacitySource(4)): (1, 3)}
    ),
    HierarchicalTaskPoolRunner: lambda: HierarchicalTaskPoolRunner([], CapacitySource(1)),
    TaskRun: lambda: HierarchicalTaskPoolRunner([], CapacitySource(1)).run_tasks(),
    Lease: lease,
    Journal: lambda: Journal("a.journal"),
    PushChain: PushChain.start,
    PushPullBufferObj: PushPullBufferObj,
    PushPullObj: lambda: PushPullObj(SinkNullObj(), SourceIterObj([1])),
    WaitObject: WaitObject,
    DependencySourceObj: lambda: DependencySourceObj(DependencyGraph()),
    PriorityDependencySourceObj: lambda: PriorityDependencySourceObj(DependencyGraph()),
    PrioritySourceObj: PrioritySourceObj,
    Submission: lambda: Submission.__new__(Submission),
    RemoteLease: lambda: RemoteLease(same),
    LoopExecutor: LoopExecutor,
    ProcessExecutor: lambda: ProcessExecutor(1),
    RayExecutor: lambda: RayExecutor(workers=1),
    ThreadExecutor: lambda: ThreadExecutor("threads"),
    Queue: Queue,
    LifoQueue: LifoQueue,
    PriorityQueue: PriorityQueue,
    RecordingSink: RecordingSink,
    ScriptedSource: lambda: ScriptedSource([1]),
    VirtualClock: VirtualClock,
    PullObj: PullObj,
    PushObj: PushObj,
    SourceObj: SourceObj,
    SinkObj: SinkObj,
}
# All other streams and push objects inherit the refusal from these two classes.
STREAMS = (PullObj, PushObj)
NO_OBJECTS = {CacheStore, OutcomeListener, Executor, Handle, Listener, MakeExecutor, RunnerOptions}
"""Protocols, and a dictionary for type checkers."""


def public() -> list[type]:
    modules: list[Any] = [
        headrace,
        headrace.capacity,
        headrace.pool,
        headrace.queue,
        headrace.testing,
        headrace.testing.executors,
    ]
    found = {
        getattr(module, name)
        for module in modules
        for name in dir(module)
        if not name.startswith("_")
        and isinstance(kind := getattr(module, name), type)
        # Skip what a module imports for its own use.
        and kind.__module__.startswith("headrace")
        and "._internal.copying" not in kind.__module__
    }
    return sorted(found, key=lambda kind: kind.__qualname__)


EVERY = public()


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_public_class_has_a_row(kind: type) -> None:
    rows = [kind in VALUES, kind in STATEFUL or issubclass(kind, STREAMS), kind in NO_OBJECTS]
    assert sum(rows) == 1


@pytest.mark.parametrize("copier", COPIERS)
@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_copy_of_a_value_is_equal(kind: type, copier: str) -> None:
    value = VALUES[kind].make()
    assert type(value) is kind
    other = COPIERS[copier](value)
    assert type(other) is kind
    assert VALUES[kind].is_equal(value, other)


@pytest.mark.parametrize("copier", COPIERS)
@pytest.mark.parametrize(
    "kind",
    [*STATEFUL, *(kind for kind in EVERY if issubclass(kind, STREAMS) and kind not in STATEFUL)],
    ids=lambda kind: kind.__name__,
)
def test_stateful_objects_refuse_to_be_copied(kind: Any, copier: str) -> None:
    # An uninitialised stream is enough, because its class refuses.
    thing = STATEFUL[kind]() if kind in STATEFUL else kind.__new__(kind)
    with pytest.raises(TypeError, match=rf"{kind.__name__} cannot be copied or pickled: .*; \w+"):
        COPIERS[copier](thing)


@pytest.mark.parametrize("copier", COPIERS)
def test_user_class_may_allow_copies(copier: str) -> None:
    assert COPIERS[copier](Numbers(3)).most == 3


class Numbers(SourceObj[int]):
    """A source that can be recreated from its argument."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.most = count

    def __reduce__(self) -> Any:
        return Numbers, (self.most,)


@pytest.mark.parametrize("copier", COPIERS)
def test_copied_error_without_an_item_has_none(copier: str) -> None:
    assert not COPIERS[copier](WouldBlock("w")).has_item


@pytest.mark.parametrize("copier", COPIERS)
def test_copied_retry_behaves_like_the_original(copier: str) -> None:
    retry = Retry(3, ValueError, random=random.Random(7))
    other = COPIERS[copier](retry)
    assert other == retry
    assert hash(other) == hash(retry)
    assert other.applies(ValueError(), 1)
    assert not other.applies(KeyError(), 1)
    if copier != "copy":
        # A shallow copy shares the generator.
        assert other.delay(ValueError(), 1) == retry.delay(ValueError(), 1)
    assert retry != Retry(3, ValueError)
    assert Retry(3) == Retry(3)
    assert Retry(3) != Retry(4)


VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("VARIABLE", default=0)


def test_copied_task_keeps_context_pickled_task_does_not() -> None:
    def made() -> Task:
        VARIABLE.set(1)
        return Task(same, [1])

    task = contextvars.copy_context().run(made)
    assert copy.copy(task).context is task.context
    assert copy.copy(task).args[0] is task.args[0]
    deep = copy.deepcopy(task)
    assert deep.context is task.context
    assert deep.args == task.args
    assert deep.args[0] is not task.args[0]
    VARIABLE.set(2)
    assert pickled(5, task).context[VARIABLE] == 2
