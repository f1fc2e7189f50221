"""Run `async def` tests, each on every kind of event loop.

A coroutine test is run on asyncio, on asyncio with eager tasks (from CPython 3.12) and on uvloop
(if it is installed). `@pytest.mark.loops("asyncio")` narrows that;
`@pytest.mark.virtual` runs the test on the virtual clock of `headrace.testing` instead. The fixture
`loop_kind` names the kind of loop.

A test fails if a task that it started is still running when it returns, or if the loop's exception
handler was called.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from headrace._core import set_yield_budget
from headrace.pool.config import Config
from headrace.testing import VirtualClock
from tests.command import Files, files_in
from tests.line_files import numbered_lines, write_file
from tests.pool_executors import EXECUTORS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from headrace.pool import Executor

# Deadlines of examples would only measure how busy the machine is. All other profiles are based on this one.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("patient")

# "nanoseconds,items": see `test_budget.py`.
BUDGET = tuple(map(int, os.environ.get("HEADRACE_TURN_BUDGET", "500000,4096").split(",")))
set_yield_budget(*BUDGET)

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


def _skip_reason(kind: str) -> str | None:
    """Return the reason why this interpreter cannot run tests on that kind of loop."""
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
    # A kind that this interpreter lacks is skipped if the marker names it, and left out otherwise.
    kinds = marker.args if marker else tuple(kind for kind in KINDS if not _skip_reason(kind))
    if unknown := set(kinds) - set(KINDS):
        msg = f"{node.nodeid}: no such loop: {', '.join(sorted(unknown))}"
        raise pytest.UsageError(msg)
    metafunc.parametrize(
        "loop_kind",
        [
            pytest.param(
                kind, marks=pytest.mark.skip(reason) if (reason := _skip_reason(kind)) else ()
            )
            for kind in kinds
        ],
    )


@pytest.fixture
def loop_kind(request: pytest.FixtureRequest) -> str:
    """The kind of event loop of this test."""
    kind: str = request.param
    return kind


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Write programs for the command, and return a function that writes its input."""
    return files_in(tmp_path)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of 100,000 lines."""
    return write_file(tmp_path / "large.txt", numbered_lines(100_000))


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A named pipe."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture(scope="module")
def sweep_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A directory for the files of the sources of `SOURCES`."""
    from tests.sweep_sources import DIRECTORY

    DIRECTORY.append(tmp_path_factory.mktemp("lines"))
    yield
    DIRECTORY.clear()


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Executor:
    """A new executor of each kind."""
    return EXECUTORS[request.param]()


@pytest.fixture(params=["plain", "timed"])
def task_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test of pools with tasks as they are, and again with a timeout for each task that has none."""
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
def large_budget() -> Iterator[None]:
    """Set a yield budget that is never used up, however busy the machine is."""
    set_yield_budget(10**15, 10**9)
    yield
    set_yield_budget(*BUDGET)


@pytest.fixture
def tiny_budget() -> Iterator[None]:
    """Set a yield budget that is always used up: tasks yield wherever they can."""
    set_yield_budget(0, 1)
    yield
    set_yield_budget(*BUDGET)


@pytest.fixture
def gc_disabled() -> Iterator[None]:
    """Disable the garbage collector: objects are freed only if they are in no reference cycle."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


SLOWEST = [
    "wheel",
    "sweep",
    "references",
    "pool_soak",
    "cli_formats",
    "cli",
    "sweep_terminals",
    "push_back",
    "examples",
    "pool_pairs",
    "cli_signals",
    "docs",
    "pull_lines",
    "private_layouts",
    "capacity_adaptive",
    "fork",
    "site_built",
    "pull_models",
    "explain",
    "growth",
    "pull_concurrent",
    "cli_journal",
    "cli_journal_kills",
]
"""The test files that take longest, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest files first: where several processes run a file each, none of these is left to the end."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


STARTED = pytest.StashKey[float]()
"""The time just before the timeout of a test began to count."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note the time, before pytest-timeout sets its timer."""
    item.stash[STARTED] = time.time()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that has passed only because its timeout interrupted it, with an exception that the tested code has caught."""
    report = yield
    marker = item.get_closest_marker("timeout")
    given = marker.args[0] if marker and marker.args else item.config.getoption("timeout")
    limit = float(item.config.getini("timeout") or 0) if given is None else float(given)
    if call.when == "call" and report.passed and limit > 0:
        if call.stop - item.stash[STARTED] < 0.99 * limit:
            return report
        report.outcome = "failed"
        report.longrepr = f"it ended only after its timeout of {limit:g} s, which interrupted it"
    return report


def pytest_collection_finish() -> None:
    """Exempt the objects of all collected tests from garbage collection: many tests collect, and each would visit them."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
    loop_errors: list[dict[str, Any]] = []

    async def run_test() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: loop_errors.append(context))
        await test(**arguments)
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            tasks = "\n".join(sorted(f"  {task!r}" for task in left))
            pytest.fail(f"{len(left)} task(s) left running:\n{tasks}", pytrace=False)

    with asyncio.Runner(loop_factory=FACTORIES[str(pyfuncitem.funcargs["loop_kind"])]()) as runner:
        runner.run(run_test())
    if loop_errors:
        errors = "\n".join(
            f"  {context['message']}: {context.get('exception')!r}" for context in loop_errors
        )
        pytest.fail(f"the loop's exception handler was called:\n{errors}", pytrace=False)
    return True
