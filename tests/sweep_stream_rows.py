"""Rows of operators with timers, background tasks, or several streams."""

from __future__ import annotations

import itertools
import operator
import re
from typing import TYPE_CHECKING, Any, Literal, cast

from headrace import (
    SKIP,
    CapacitySource,
    PullConcatObj,
    PullEagerObj,
    PullFilterObj,
    PullGateObj,
    PullLabeledRaceObj,
    PullLabeledRaceRobinObj,
    PullLabeledRoundRobinObj,
    PullLabeledZipObj,
    PullObj,
    PullPushBridgeObj,
    PullPushDistributeObj,
    PullRaceCutoffObj,
    PullRaceObj,
    PullRaceRobinObj,
    PullRoundRobinObj,
    PullThrottleObj,
    PullTimeoutObj,
    PullWindowTimeoutObj,
    PullZipObj,
    SinkCollectObj,
    SinkNullObj,
    SourceCapacityObj,
    SourceIterObj,
    WaitObject,
)
from tests.support import wrong
from tests.sweep_sources import UserLink, pausing
from tests.sweep_types import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable


class Branch(PullFilterObj[Any]):
    """One of two branches, which owns the other."""

    def __init__(self, source: PullObj[Any]) -> None:
        self.other, branch = source.tee(2, maxsize=100_000)
        super().__init__(branch, lambda _: True)

    async def aclose(self) -> None:
        try:
            await self.other.aclose()
        finally:
            await super().aclose()


class Always(WaitObject[Any]):
    """A signal that is resolved whenever it is awaited."""

    def wait(self) -> Coroutine[Any, Any, Any]:
        self.resolve()
        return super().wait()


def _timeout(on_timeout: Literal["raise", "skip"]) -> Row:
    return Row(
        f"timeout, {on_timeout}",
        lambda source, _: PullTimeoutObj(source, 100, on_timeout=on_timeout),
        lambda items: items,
        covers=(PullTimeoutObj,),
        identity=lambda stream: stream.timeout(100, on_timeout=on_timeout),
        depth=2_000,
        bad=(
            (lambda: PullTimeoutObj([1], -1), ValueError, r"timeout must .*got -1 \(int\)"),
            (lambda: PullTimeoutObj([1], wrong("1")), TypeError, r"timeout must .*got '1' \(str\)"),
            (
                lambda: PullTimeoutObj([1], 1, on_timeout=wrong("no")),
                ValueError,
                "on_timeout must be .*got 'no'",
            ),
        ),
        calls="none",
        restarts="at rest",
        owns_tasks=True,
    )


def _batch_timeout(timeout: float) -> Row:
    """Batches may be cut early, so only their items are compared."""
    return Row(
        f"batch with timeout, {timeout} s",
        lambda source, _: PullWindowTimeoutObj(source, 4, timeout).flatten(),
        lambda items: items,
        covers=(PullWindowTimeoutObj,),
        identity=lambda stream: stream.batch(2, timeout).flatten(),
        depth=2_000,
        bad=(
            (lambda: PullWindowTimeoutObj([1], 0, 1), ValueError, "size must be .*got 0"),
            (lambda: PullWindowTimeoutObj([1], 2, -1), ValueError, "timeout must .*got -1"),
        ),
        calls="none",
        restarts="at rest",
        owns_tasks=True,
    )


# Longer than the source it is zipped with, even where errors cost rows.
NUMBERED = range(100, 20_200)


def _merged(
    name: str,
    kind: type[PullObj[Any]],
    model: Callable[[list[Any]], list[Any]],
    others: Callable[[], list[Any]],
    *,
    identity: Callable[[PullObj[Any]], PullObj[Any]],
    bad: tuple[tuple[Callable[[], Any], type[Exception], str], ...] = (),
    ordered: bool = True,
) -> Row:
    """Return a row for an operator over several sources; their labels, if it has any, are their numbers."""
    is_labelled = "Labeled" in kind.__name__
    repeated = [1]
    make = cast("Callable[..., PullObj[Any]]", kind)

    def combine(*sources: Any) -> PullObj[Any]:
        return make(dict(enumerate(sources))) if is_labelled else make(*sources)

    needed: list[Any] = []
    empty, second = "sources", "sources[1]"
    if kind is PullRaceCutoffObj:
        needed, empty, second = [[1]], "cutoffs", "cutoffs[0]"
    return Row(
        name,
        lambda source, _: combine(source, *others()),
        model,
        covers=(kind,),
        identity=identity,
        depth=2_000,
        bad=(
            (
                lambda: combine(*needed),
                ValueError,
                f"{kind.__name__}: {empty} must be one stream at least, got none",
            ),
            (
                lambda: combine(repeated, repeated),
                ValueError,
                re.escape(f"{second} must not be sources[0] again, [1]"),
            ),
            (
                lambda: combine([1], 7),
                TypeError,
                re.escape(second) + r" must be an iterable .*not 7 \(int\)",
            ),
            *bad,
        ),
        calls="none",
        ordered=ordered,
        restarts="at rest",
        owns_tasks=True,
        errors_count=True,
        # One is polled in place, one gets its own task, and one would be ended by a cancellation.
        sources=("list", "pausing", "generator"),
    )


def interleave(*lists: list[Any]) -> list[Any]:
    rounds = itertools.zip_longest(*lists, fillvalue=SKIP)
    return [item for items in rounds for item in items if item is not SKIP]


def with_label(label: int, items: Iterable[Any]) -> list[tuple[int, Any]]:
    return [(label, item) for item in items]


STREAM_ROWS = [
    Row(
        "tee, the only branch",
        lambda source, _: source.tee(1)[0],
        lambda items: items,
        covers=(),
        identity=lambda stream: stream.tee(1)[0],
        depth=100,
        bad=(
            (lambda: SourceIterObj([1]).tee(0), ValueError, "n must be at least 1, got 0"),
            (
                lambda: SourceIterObj([1]).tee(2, maxsize=0),
                ValueError,
                "maxsize must be at least 1, got 0",
            ),
            (
                lambda: SourceIterObj([1]).tee(2, overflow=wrong("drop")),
                ValueError,
                "overflow must be .*got 'drop'",
            ),
        ),
        calls="none",
        restarts="never",
    ),
    Row(
        "tee, a branch ahead of another",
        lambda source, _: Branch(source),
        lambda items: items,
        covers=(),
        calls="none",
        restarts="never",
    ),
    Row(
        "prefetch",
        lambda source, _: PullEagerObj(source, 2),
        lambda items: items,
        covers=(PullEagerObj,),
        identity=lambda stream: stream.prefetch(),
        bad=(
            (
                lambda: PullEagerObj([1], 0),
                ValueError,
                r"buffer_size must be at least 1, got 0",
            ),
            (
                lambda: PullEagerObj([1], wrong("2")),
                TypeError,
                r"buffer_size must be .*got '2' \(str\)",
            ),
            (lambda: PullEagerObj(wrong(7)), TypeError, r"source must be .*got 7 \(int\)"),
        ),
        calls="none",
        restarts="at rest",
        owns_tasks=True,
    ),
    _timeout("raise"),
    _timeout("skip"),
    # Batches of ready items, of items within some delays, and full batches.
    _batch_timeout(0),
    _batch_timeout(0.4),
    _batch_timeout(100),
    Row(
        "throttle",
        lambda source, _: PullThrottleObj(source, 1e9, burst=100),
        lambda items: items,
        covers=(PullThrottleObj,),
        identity=lambda stream: stream.throttle(1e9, burst=100),
        bad=(
            (lambda: PullThrottleObj([1], 0), ValueError, r"rate must be .*got 0 \(int\)"),
            (lambda: PullThrottleObj([1], -1), ValueError, r"rate must be .*got -1 \(int\)"),
            (lambda: PullThrottleObj([1], 1, per=0), ValueError, r"per must be .*got 0 \(int\)"),
            (lambda: PullThrottleObj([1], 1, burst=0), ValueError, "burst must be .*got 0"),
        ),
        calls="none",
    ),
    Row(
        "throttle that waits",
        lambda source, _: PullThrottleObj(source, 2),
        lambda items: items,
        covers=(PullThrottleObj,),
        calls="none",
        timed=True,
    ),
    Row(
        "capacity",
        lambda source, _: SourceCapacityObj(source, CapacitySource(1)),
        lambda items: items,
        covers=(SourceCapacityObj,),
        bad=(
            (
                lambda: SourceCapacityObj([1], wrong(3)),
                TypeError,
                r"capacity must be a CapacitySource, got 3 \(int\)",
            ),
            (
                lambda: SourceCapacityObj([1], CapacitySource(1), cost=2),
                ValueError,
                "a cost of 2 slots can never be granted",
            ),
        ),
        calls="none",
    ),
    _merged(
        "concat",
        PullConcatObj,
        lambda items: [*items, 10, 11],
        lambda: [pausing([10, 11])],
        identity=lambda stream: stream.concat(()),
        bad=(
            (
                lambda: PullConcatObj([1], prefetch=0),
                ValueError,
                "prefetch must be at least 1 .*got 0",
            ),
            (
                lambda: PullConcatObj([1], errors=wrong("loud")),
                ValueError,
                "errors must be .*got 'loud'",
            ),
        ),
    ),
    _merged(
        "zip",
        PullZipObj,
        lambda items: list(zip(items, NUMBERED, strict=False)),
        lambda: [NUMBERED],
        identity=lambda stream: stream.zip(NUMBERED).map(operator.itemgetter(0)),
        bad=(
            (
                lambda: PullZipObj([1], [2], strict=True, longest=wrong(True)),
                ValueError,
                "strict must not be true together with longest, got True and True",
            ),
            (
                lambda: PullZipObj([1], [2], fill=0),
                ValueError,
                "fill has no meaning without longest=True, got 0",
            ),
        ),
    ),
    _merged(
        "round_robin",
        PullRoundRobinObj,
        lambda items: interleave(items, [10, 11]),
        lambda: [pausing([10, 11])],
        identity=lambda stream: stream.round_robin(()),
    ),
    _merged(
        "merge",
        PullRaceObj,
        lambda items: [*items, 10, 11],
        lambda: [pausing([10, 11])],
        identity=lambda stream: stream.merge(()),
        ordered=False,
    ),
    _merged(
        "fair merge",
        PullRaceRobinObj,
        lambda items: [*items, 10, 11],
        lambda: [pausing([10, 11])],
        identity=lambda stream: stream.merge((), fair=True),
        ordered=False,
    ),
    _merged(
        "take_until",
        PullRaceCutoffObj,
        lambda items: items,
        lambda: [pausing([])],
        identity=lambda stream: stream.take_until(()),
        bad=(
            (
                lambda: PullRaceCutoffObj([1], [2], error=wrong("end")),
                TypeError,
                r"error must be an exception or None, got 'end' \(str\)",
            ),
        ),
    ),
    _merged(
        "labelled zip",
        PullLabeledZipObj,
        lambda items: [((0, item), (1, n)) for item, n in zip(items, NUMBERED, strict=False)],
        lambda: [NUMBERED],
        identity=lambda stream: PullLabeledZipObj({"it": stream}).map(lambda row: row[0][1]),
        bad=(
            (
                lambda: PullLabeledZipObj(wrong([1])),
                TypeError,
                r"sources must be a mapping .*not \[1\] \(list\)",
            ),
        ),
    ),
    _merged(
        "labelled round_robin",
        PullLabeledRoundRobinObj,
        lambda items: interleave(with_label(0, items), with_label(1, [10, 11])),
        lambda: [pausing([10, 11])],
        identity=lambda stream: PullLabeledRoundRobinObj({"it": stream}).map(
            operator.itemgetter(1)
        ),
    ),
    _merged(
        "labelled merge",
        PullLabeledRaceObj,
        lambda items: with_label(0, items) + with_label(1, [10, 11]),
        lambda: [pausing([10, 11])],
        identity=lambda stream: PullLabeledRaceObj({"it": stream}).map(operator.itemgetter(1)),
        ordered=False,
    ),
    _merged(
        "labelled fair merge",
        PullLabeledRaceRobinObj,
        lambda items: with_label(0, items) + with_label(1, [10, 11]),
        lambda: [pausing([10, 11])],
        identity=lambda stream: PullLabeledRaceRobinObj({"it": stream}).map(operator.itemgetter(1)),
        ordered=False,
    ),
    Row(
        "user link",
        lambda source, _: UserLink(source),
        lambda items: items,
        covers=(),
        bad=((lambda: UserLink(wrong(3)), TypeError, r"source must be .*got 3 \(int\)"),),
        calls="none",
        has_own_anext=True,
    ),
    Row(
        "several operators",
        lambda source, wrap: (
            source.map(wrap(lambda n: n + 1))
            .flat_map(wrap(lambda n: [n, n]))
            .filter(wrap(lambda n: n != 3))
            .batch(3)
            .flatten()
            .accumulate(wrap(operator.add), 0)
        ),
        lambda items: list(
            itertools.accumulate(m for n in items for m in (n + 1, n + 1) if m != 3)
        ),
        covers=(),
        is_simple=False,
    ),
    Row(
        "bridge",
        lambda source, _: PullPushBridgeObj(
            source, SinkNullObj(), SinkCollectObj(), forward_close=False
        ),
        lambda items: items,
        covers=(PullPushBridgeObj,),
        bad=(
            (lambda: PullPushBridgeObj([1]), ValueError, "sinks must hold .*got none"),
            (
                lambda: PullPushBridgeObj([1], wrong(3)),
                TypeError,
                r"sinks\[0\] must be a push object, got 3 \(int\)",
            ),
            (
                lambda: PullPushBridgeObj(wrong(3), SinkNullObj()),
                TypeError,
                r"source must be .*got 3 \(int\)",
            ),
        ),
        calls="none",
    ),
    Row(
        "distributing bridge",
        lambda source, wrap: PullPushDistributeObj(
            source, [SinkNullObj(), SinkCollectObj()], wrap(lambda n: n % 2), forward_close=False
        ),
        lambda items: items,
        covers=(PullPushDistributeObj,),
        bad=(
            (
                lambda: PullPushDistributeObj([1], [], int),
                ValueError,
                "sinks must hold .*got none",
            ),
            (
                lambda: PullPushDistributeObj([1], wrong(3), int),
                TypeError,
                r"sinks must be an iterable of push objects, got 3 \(int\)",
            ),
            (
                lambda: PullPushDistributeObj([1], [SinkNullObj()], wrong(3)),
                TypeError,
                r"selector must be callable, got 3 \(int\)",
            ),
        ),
    ),
    Row(
        "gate",
        lambda source, _: PullGateObj(source, Always()),
        lambda items: items,
        covers=(PullGateObj,),
        bad=(
            (
                lambda: PullGateObj([1], wrong(3)),
                TypeError,
                r"wait_obj must be a WaitObject, got 3 \(int\)",
            ),
        ),
        calls="none",
    ),
]
