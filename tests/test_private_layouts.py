"""Each private layout of CPython has a self-test at import, and a fallback that uses the public API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace._core import private_layouts

ROOT = Path(__file__).parent.parent
VARIABLE = "HEADRACE_NO_PRIVATE_LAYOUTS"

# Layouts that this version of CPython does not have.
ABSENT = (
    {"current_tasks", "current_tasks_version"}
    if sys.version_info >= (3, 14)
    else {"swap_current_task"}
    if sys.version_info < (3, 12)
    else set()
)

# The rest of the tests may themselves run on a fallback.
pytestmark = pytest.mark.skipif(VARIABLE in os.environ, reason=f"{VARIABLE} is set")

# Print the layouts in use, and results from each part of headrace.
PROGRAM = """
import asyncio, gc, json, threading, weakref
from headrace import *
import headrace._core as _core


class Error(Exception):
    pass


async def numbers(most, closed):
    try:
        for number in range(most):
            yield number
            await asyncio.sleep(0)
    finally:
        closed.append(asyncio.current_task() is not None)


async def work(number):
    await asyncio.sleep(0)
    if number == 3:
        raise Error(number)
    return number


async def main():
    found, closed = [], []
    loop = asyncio.get_running_loop()
    # Values that an exception of CPython's takes for something else.
    odd = [(), (1, 2), None, Error("an item"), StopIteration(3)]
    found.append([repr(item) async for item in SourceIterObj(odd)])
    first = SourceIterObj(odd)
    found.append([repr(await asyncio.wait_for(anext(first), 9)) for _ in range(3)])
    found.append([item async for item in PullMapObj(SourceIterObj(numbers(9, closed)), lambda n: n + 1)])
    race = PullRaceObj(numbers(5, closed), numbers(5, closed))
    found.append(sorted([item async for item in race]))

    class Own(PullMapObj):
        async def __anext__(self):
            return await super().__anext__() * 2

    found.append([item async for item in Own(SourceIterObj([1, 2]), work)])

    # A task, and a thread, wake one that waits.
    buffer = PushPullBufferObj(1)
    taken = asyncio.create_task(anext(buffer.source))
    await asyncio.sleep(0)
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(loop.create_task, buffer.sink.next("item")))
    thread.start()
    found.append(await taken)
    thread.join()

    capacity = CapacitySource(2)
    for _ in range(20):
        async with capacity.acquire():
            pass
    # The task that holds one is known, in each of its steps.
    found.append(await asyncio.gather(*(hold(capacity) for _ in range(4))))

    begun = loop.time()
    for tasks in ([lambda n=n: work(n) for n in range(8)], [Task(lambda n=n: work(n)) for n in range(8)]):
        runner = HierarchicalTaskPoolRunner(SourceIterObj(tasks), CapacitySource(3))
        envelopes, old = [], []
        async for envelope in runner.run_tasks():
            assert begun <= envelope.queued <= envelope.started <= envelope.finished <= loop.time()
            envelopes.append((envelope.task_id, str(envelope.type), repr(envelope.value), repr(envelope.error)))
            old.append(weakref.ref(envelope))
            del envelope
        found.append(sorted(envelopes))
    found.append(closed)
    return found


async def hold(capacity):
    async with capacity.acquire():
        await asyncio.sleep(0)
        return type(asyncio.current_task()).__name__


found = asyncio.run(main())
gc.collect()
print(json.dumps([_core.private_layouts(), found]))
"""


def run(program: str, refused: str) -> list[Any]:
    """Run a program without these layouts, and return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, VARIABLE: refused},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    printed: list[Any] = json.loads(done.stdout)
    return printed


def test_all_layouts_are_in_use_by_default() -> None:
    assert {name for name, is_used in private_layouts().items() if not is_used} == ABSENT


@pytest.fixture(scope="module")
def with_all() -> object:
    return run(PROGRAM, "")[1]


def in_use_without(names: set[str]) -> dict[str, bool]:
    """Return whether each layout is in use when these are refused."""
    # The version is read from the dictionary.
    implied = {"current_tasks_version"} if "current_tasks" in names else set[str]()
    return {name: name not in names | implied | ABSENT for name in private_layouts()}


@pytest.mark.parametrize("refused", [*private_layouts(), "all", " current_tasks , anext_slot,"])
def test_results_are_the_same_without_a_layout(refused: str, with_all: object) -> None:
    used, found = run(PROGRAM, refused)
    names = {name.strip() for name in refused.split(",")}
    assert used == in_use_without({*private_layouts()} if refused == "all" else names)
    assert found == with_all


# Tests that measure time or end a process are left out.
SUITE = [
    "test_awaitable.py",
    "test_awaitable_wakes.py",
    "test_pull.py",
    "test_pull_cancel.py",
    "test_pull_ending.py",
    "test_pull_reduce.py",
    "test_pull_subclass.py",
    "test_merge.py",
    "test_merge_errors.py",
    "test_merge_identity.py",
    "test_merge_labels.py",
    "test_merge_live.py",
    "test_merge_pace.py",
    "test_combiner_values.py",
    "test_pool.py",
    "test_pool_envelope.py",
    "test_capacity_leases.py",
    "test_two_loops.py",
]
LEFT_OUT = ["uvloop", "eager", "thousand", "cost_of", "merges_of_merges", "process_ends", "offers"]


@pytest.mark.timeout(600)
def test_suite_passes_without_private_layouts() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-k", " and ".join(f"not {word}" for word in LEFT_OUT)),
            *(f"tests/{file}" for file in SUITE),
        ],
        cwd=ROOT,
        env={**os.environ, VARIABLE: "all"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


# Code that alters the interpreter before `_core` is imported, and code that restores it afterwards. `grow` makes the objects
# of a type larger than the struct that this build knows, as a new field in a release of CPython would.
GROW = """
import ctypes
def grow(kind):
    size = ctypes.c_ssize_t.from_address(id(kind) + 32)
    assert size.value == kind.__basicsize__
    size.value += 16
"""
WRAPPED = """
async def items():
    yield
send = ctypes.pythonapi.PyIter_Send
send.argtypes = [ctypes.py_object, ctypes.py_object, ctypes.POINTER(ctypes.py_object)]
wrapped = ctypes.py_object()
send(items(), None, ctypes.byref(wrapped))
grow(type(wrapped.value))
"""
ALTERED = {
    "async_generators": (GROW + WRAPPED, ""),
    "stop_iteration": (GROW + "grow(StopIteration)", ""),
    "builtin_functions": (GROW + "grow(type(len))", ""),
    "current_tasks_version": (GROW + "grow(dict)", ""),
    "current_tasks": (
        "tasks, asyncio.tasks._current_tasks = asyncio.tasks._current_tasks, {}",
        "asyncio.tasks._current_tasks = tasks",
    ),
    "loop_thread": (
        "loops = asyncio.BaseEventLoop\nits, loops.is_running = loops.is_running, lambda self: False",
        "loops.is_running = its",
    ),
    "monotonic_clock": (
        "import time\nits, time.monotonic = time.monotonic, lambda: its() + 1",
        "time.monotonic = its",
    ),
    "swap_current_task": (
        "import _asyncio\nits, _asyncio._swap_current_task = _asyncio._swap_current_task, max",
        "_asyncio._swap_current_task = its",
    ),
}


@pytest.mark.parametrize("name", ALTERED)
def test_changed_layout_is_not_used(name: str, with_all: object) -> None:
    if name in ABSENT:
        pytest.skip("this CPython has no such layout")
    altered, restored = ALTERED[name]
    program = f"import asyncio\n{altered}\nimport headrace._core\n{restored}\n{PROGRAM}"
    used, found = run(program, "")
    assert used == in_use_without({name})
    assert found == with_all


def test_misspelled_name_is_reported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import headrace._core"],
        env={**os.environ, VARIABLE: "anext_slot, curent_tasks"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert f'RuntimeWarning: {VARIABLE} names "curent_tasks"' in done.stderr
    assert '"anext_slot"' not in done.stderr
