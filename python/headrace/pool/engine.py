"""`make_engine`: makes the engine (`_core.Engine`) of a run, and `use_cache`: gives it a cache. `Run` calls them."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

import headrace.pool.reentrancy as reentrancy
import headrace.task._current_lease as current_lease
from headrace._core import Engine, set_tree_watcher

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context
    from weakref import ref

    from headrace._core import TreeRef
    from headrace.pool.cache_policy import CachedRun, CachePolicy
    from headrace.pool.config import Config
    from headrace.pool.event_queue import EventQueue
    from headrace.pool.policy import Policy
    from headrace.pool.shutdown import End


class EngineOwner(Protocol):
    """The run of an engine."""

    config: Config[Any]
    loop: asyncio.AbstractEventLoop
    events: EventQueue
    context: Context
    end: End


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return the clock of an event loop."""
    # The `time` method of asyncio's own event loops calls `time.monotonic`.
    own = type(loop).time is asyncio.BaseEventLoop.time
    return time.monotonic if own else loop.time


def make_engine(run: EngineOwner, policy: Policy, clock: Callable[[], float]) -> Engine:
    """Make the engine of a run."""
    config = run.config
    return Engine(
        policy,
        task_prefix=config.task_prefix,
        source=config.source,
        has_executor=config.executor is not None,
        outcome_listener=config.outcome_listener,
        capacity=config.capacity,
        event_loop=run.loop,
        clock=clock,
        context=run.context,
        inside_variable=reentrancy.variable,
        inside=run.end.inside,
        lease_variable=current_lease.variable,
        events=run.events.unread,
        ids=config.ids,
        throughput=config.throughput,
        timeout=config.timeout,
        retry=config.retry,
        # In the core these are sizes of memory, which no run reaches.
        lookahead=min(config.lookahead, sys.maxsize),
        most_backing_off=min(config.max_buffered, sys.maxsize),
        cools_down=config.max_cooldown is not None,
        debug=run.loop.get_debug(),
    )


def use_cache(run: CachedRun) -> CachePolicy | None:
    """Pass the cache of the runner, if it has one, to the engine of a run, and return its policy."""
    cache = run.config.cache
    if cache is None:
        return None
    # Late: an option that most programs do not use.
    from headrace.pool.cache_policy import CachePolicy

    policy = CachePolicy(run, cache)
    run.engine.set_cache(policy)
    return policy


def _watch_tree(tree: ref[TreeRef], loop: asyncio.AbstractEventLoop) -> None:
    # Late: most programs never have a waiter.
    from headrace.pool._stuck import watch

    watch(tree, loop)


set_tree_watcher(_watch_tree)
