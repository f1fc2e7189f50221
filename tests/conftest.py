"""Runs `async def` tests, each on every event loop that matters.

A test that is a coroutine function is run once on asyncio, once on asyncio with eager tasks (from
CPython 3.12) and once on uvloop (where it is installed). `@pytest.mark.loops("asyncio")` narrows that;
`@pytest.mark.virtual` runs the test on the virtual clock of `headrace.testing` instead. A test that
wants to know asks for the fixture `loop_kind`.

A test passes only if, when it returns, none of the tasks it started is left and its loop's exception
handler heard nothing.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from headrace._core import set_turn_budget
from headrace.pool.config import Config
from headrace.testing import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# How long an example takes says how busy the machine is. All other profiles begin with this one.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("patient")

# "nanoseconds,items": see `test_budget.py`.
BUDGET = tuple(map(int, os.environ.get("HEADRACE_TURN_BUDGET", "500000,4096").split(",")))
set_turn_budget(*BUDGET)

KINDS = ("asyncio", "eager", "uvloop")


def _eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


FACTORIES: dict[str, Callable[[], Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": lambda: asyncio.new_event_loop,
    "eager": lambda: _eager_loop,
    "uvloop": lambda: _uvloop,
    "virtual": VirtualClock,
}


def _why_not(kind: str) -> str | None:
    """Why this interpreter cannot run tests on that kind of loop."""
    if kind == "eager" and sys.version_info < (3, 12):
        return "eager tasks came with CPython 3.12"
    if kind == "uvloop" and find_spec("uvloop") is None:
        return "uvloop is not installed"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> None:
    if collector.istestfunction(obj, name) and inspect.iscoroutinefunction(obj):
        pytest.mark.usefixtures("loop_kind")(obj)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "loop_kind" not in metafunc.fixturenames:
        return
    node = metafunc.definition
    if node.get_closest_marker("virtual"):
        metafunc.parametrize("loop_kind", ["virtual"])
        return
    marker = node.get_closest_marker("loops")
    # A kind that this interpreter lacks is left out when nobody asked for it, skipped when somebody did.
    kinds = marker.args if marker else tuple(kind for kind in KINDS if not _why_not(kind))
    if unknown := set(kinds) - set(KINDS):
        msg = f"{node.nodeid}: no such loop: {', '.join(sorted(unknown))}"
        raise pytest.UsageError(msg)
    metafunc.parametrize(
        "loop_kind",
        [
            pytest.param(kind, marks=pytest.mark.skip(reason) if (reason := _why_not(kind)) else ())
            for kind in kinds
        ],
    )


@pytest.fixture
def loop_kind(request: pytest.FixtureRequest) -> str:
    """The kind of event loop that this test runs on."""
    kind: str = request.param
    return kind


@pytest.fixture(params=["plain", "timed"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test of pools with tasks as they are, and again with a timeout for each task that has none."""
    chosen: str = request.param
    if chosen == "timed":
        prepare = Config.__post_init__

        def timed(config: Config[Any]) -> None:
            prepare(config)
            if config.timeout is None:
                config.timeout = 1e6

        monkeypatch.setattr(Config, "__post_init__", timed)
    return chosen


@pytest.fixture
def unhurried() -> Iterator[None]:
    """No task has to let its loop turn for what it spends, however busy the machine is."""
    set_turn_budget(10**15, 10**9)
    yield
    set_turn_budget(*BUDGET)


@pytest.fixture
def restless() -> Iterator[None]:
    """A task has to let its loop turn wherever it may."""
    set_turn_budget(0, 1)
    yield
    set_turn_budget(*BUDGET)


@pytest.fixture
def no_collections() -> Iterator[None]:
    """What is freed meanwhile was in no cycle."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
    heard: list[dict[str, Any]] = []

    async def whole() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: heard.append(context))
        await test(**arguments)
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            tasks = "\n".join(sorted(f"  {task!r}" for task in left))
            pytest.fail(f"{len(left)} task(s) left running:\n{tasks}", pytrace=False)

    with asyncio.Runner(loop_factory=FACTORIES[str(pyfuncitem.funcargs["loop_kind"])]()) as runner:
        runner.run(whole())
    if heard:
        errors = "\n".join(
            f"  {context['message']}: {context.get('exception')!r}" for context in heard
        )
        pytest.fail(f"the loop's exception handler was called:\n{errors}", pytrace=False)
    return True
