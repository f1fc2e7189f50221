"""Guarantee 2, for pushes into several sinks: a cancelled push names the branches that have accepted its item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from headrace import PushForkObj, PushMapObj, PushWindowObj, SinkCallbackObj, SinkCollectObj
from tests.push_injections import (
    Inject,
    Pipeline,
    Slow,
    accepted_by,
    after_turns,
    delayed,
    injections,
    push_uncancelled,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def fork_of(*makes: Callable[[Any], Any], concurrent: bool = True) -> Callable[[], Pipeline]:
    def build() -> Pipeline:
        ends = [Slow() for _ in makes]
        branches = [make(end) for make, end in zip(makes, ends, strict=True)]
        above = [[branch, getattr(branch, "sink", None)] for branch in branches]
        return Pipeline(PushForkObj(branches, concurrent=concurrent), list(ends), above)

    return build


def identity(end: Any) -> Any:
    return end


def nested() -> Pipeline:
    ends = [Slow() for _ in range(4)]
    maps = [PushMapObj(end, delayed) for end in ends[2:]]
    inner = PushForkObj([ends[1], maps[0]])
    outer = PushForkObj([ends[0], inner, maps[1]])
    return Pipeline(outer, list(ends), [[], [inner], [inner, maps[0]], [maps[1]]])


def with_ready_sinks() -> Pipeline:
    end = Slow()
    collected: SinkCollectObj[Any] = SinkCollectObj()
    called: list[Any] = []
    callback: SinkCallbackObj[Any] = SinkCallbackObj(called.append)
    fork = PushForkObj([collected, end, callback])
    vars(collected)["items"] = collected.buffer
    vars(callback)["items"] = called
    return Pipeline(fork, [collected, end, callback])


FORKS: dict[str, Callable[[], Pipeline]] = {
    "two": fork_of(identity, identity),
    "one after the other": fork_of(identity, identity, identity, concurrent=False),
    "maps": fork_of(
        lambda end: PushMapObj(end, delayed), identity, lambda end: PushMapObj(end, str)
    ),
    "maps, one after the other": fork_of(
        lambda end: PushMapObj(end, delayed), lambda end: PushMapObj(end, delayed), concurrent=False
    ),
    "nested": nested,
    "beside ready ones": with_ready_sinks,
}


@injections
@pytest.mark.parametrize("name", FORKS)
async def test_law_2_cancelled_fork_names_accepting_branches(name: str, inject: Inject) -> None:
    expected = await push_uncancelled(FORKS[name])
    partial = 0
    for victim in (0, 3):
        at, was_cancelled = 0, True
        while was_cancelled:
            at += 1
            pipeline = FORKS[name]()
            for item in pipeline.items[:victim]:
                await pipeline.top.next(item)
            cancelled = await inject(pipeline.top.next(pipeline.items[victim]), at)
            was_cancelled = cancelled is not None
            if cancelled is not None:
                lacking = pipeline.lacking(accepted_by(cancelled))
                item = pipeline.items[victim]
                for end, complete in zip(pipeline.ends, expected, strict=True):
                    has_it = end.items[victim:] == complete[victim : victim + 1]
                    assert has_it == (end not in lacking), (at, end, accepted_by(cancelled))
                partial += 0 < len(lacking) < len(pipeline.ends)
                if lacking:
                    notes = getattr(cancelled, "__notes__", [])
                    assert bool(notes) == (len(lacking) < len(pipeline.ends))
            await pipeline.top.return_()
        assert at < 100
    if inject is after_turns and name != "two":
        assert partial, "no push was delivered to only some of the branches"


def batch_then(*makes: Callable[[Any], Any], concurrent: bool = True) -> Callable[[], Pipeline]:
    def build() -> Pipeline:
        pipeline = fork_of(*makes, concurrent=concurrent)()
        return Pipeline(PushWindowObj(pipeline.top, 2), pipeline.ends)

    return build


def batches_in_branches() -> Pipeline:
    ends = [Slow(), Slow(), Slow()]
    batches = [PushWindowObj(ends[0], 2), PushWindowObj(PushMapObj(ends[1], delayed), 3)]
    return Pipeline(PushForkObj([*batches, ends[2]]), list(ends), [[batches[0]], [batches[1]], []])


HELD: dict[str, Callable[[], Pipeline]] = {
    "window, then fork": batch_then(identity, identity),
    "window, then maps": batch_then(
        lambda end: PushMapObj(end, delayed), identity, lambda end: PushMapObj(end, str)
    ),
    "window, then one after the other": batch_then(identity, identity, concurrent=False),
    "windows in branches": batches_in_branches,
}


@injections
@pytest.mark.parametrize("name", HELD)
async def test_law_2_batch_reaches_each_branch_once(name: str, inject: Inject) -> None:
    expected = await push_uncancelled(HELD[name])
    for victim in range(6):
        at, was_cancelled = 0, True
        while was_cancelled:
            at += 1
            pipeline = HELD[name]()
            if name == "windows in branches":
                was_cancelled = await push_to_missing_branches(pipeline, victim, at, inject)
            else:
                was_cancelled = False
                for number, item in enumerate(pipeline.items):
                    cancelled = await inject(
                        pipeline.top.next(item), at if number == victim else -1
                    )
                    if cancelled is not None:
                        was_cancelled = True
                        # Named is the batch, or all branches if the cancellation came too late. Nothing is named if the push
                        # # was cancelled while it yielded to the event loop on a slow machine: the producer pushes the item again.
                        if not (names := accepted_by(cancelled)):
                            await pipeline.top.next(item)
                        else:
                            assert pipeline.top in names or len(names) == len(pipeline.ends)
            await pipeline.top.return_()
            assert [end.items for end in pipeline.ends] == expected, (victim, at)
        assert at < 100


async def push_to_missing_branches(
    pipeline: Pipeline, victim: int, at: int, inject: Inject
) -> bool:
    was_cancelled = False
    for number, item in enumerate(pipeline.items):
        cancelled = await inject(pipeline.top.next(item), at if number == victim else -1)
        if cancelled is None:
            continue
        was_cancelled = True
        for branch in pipeline.top.sinks:
            if branch not in accepted_by(cancelled):
                await branch.next(item)
    return was_cancelled
