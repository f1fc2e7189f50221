"""`headrace.map`: `amap` for code without an event loop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from contextvars import ContextVar
from typing import Any

import pytest

import headrace
from headrace import (
    MapError,
)


async def double(item: int) -> int:
    await asyncio.sleep(0)
    return item * 2


async def odd(item: int) -> int:
    await asyncio.sleep(0)
    if item % 2:
        raise ValueError(item)
    return item


def child(program: str, *, code: int = 0) -> str:
    """Run a program in which warnings are errors, and return what it prints."""
    completed = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        env={**os.environ, "PYTHONASYNCIODEBUG": "0"},
    )
    assert (completed.stderr if code == 0 else "", completed.returncode) == ("", code)
    return completed.stdout


def test_map_returns_a_list() -> None:
    assert headrace.map(double, range(5), limit=2) == [0, 2, 4, 6, 8]
    assert headrace.map(str, range(3), limit=2) == ["0", "1", "2"]
    assert headrace.map(odd, range(4), limit=2, errors="skip") == [0, 2]
    with pytest.raises(MapError) as caught:
        headrace.map(odd, range(4), limit=2)
    assert caught.value.results == [0, 2]


where: ContextVar[str] = ContextVar("where", default="nowhere")


def test_map_uses_one_loop_and_the_current_context() -> None:
    async def call(_: int) -> tuple[object, str]:
        return asyncio.get_running_loop(), where.get()

    ((loop, first),) = headrace.map(call, [1], limit=1)
    token = where.set("here")
    ((same, second),) = headrace.map(call, [1], limit=1)
    where.reset(token)
    assert loop is same
    assert (first, second) == ("nowhere", "here")


async def test_map_in_a_running_loop_names_the_remedy() -> None:
    with pytest.raises(RuntimeError, match=r"use `await headrace.amap\(\.\.\.\)\.collect\(\)`"):
        headrace.map(double, range(3), limit=1)


def test_map_is_not_exported_by_a_star() -> None:
    names: dict[str, Any] = {}
    exec("from headrace import *", names)  # noqa: S102 - a statement is what is tested
    assert "map" not in names
    assert "amap" in names
    assert "map" in dir(headrace)


def test_map_leaves_nothing_open() -> None:
    program = """
        import asyncio, gc, threading, headrace
        forgotten = []
        async def call(item):
            forgotten.append(asyncio.ensure_future(asyncio.sleep(100)))
            await asyncio.to_thread(int)
            return item
        def work():
            print(headrace.map(call, [1], limit=1))
        thread = threading.Thread(target=work)
        thread.start(); thread.join()
        gc.collect()
        print([task.cancelled() for task in forgotten], threading.active_count() < 4)
        forgotten.clear()
        work()
    """
    assert child(program) == "[1]\n[True] True\n[1]\n"


def test_law_15_child_has_a_loop_of_its_own() -> None:
    program = """
        import os, sys, threading, time, warnings, headrace
        warnings.simplefilter("ignore", DeprecationWarning)
        slow = lambda item: time.sleep(0.05) or item
        print(headrace.map(slow, [1], limit=1), flush=True)
        child = os.fork()
        print(headrace.map(slow, [2 if child else 3], limit=1), flush=True) if not child else None
        if not child:
            warnings.simplefilter("ignore")
            sys.exit()
        os.waitpid(child, 0)
        print(headrace.map(slow, [4], limit=1), flush=True)
    """
    assert child(program) == "[1]\n[3]\n[4]\n"


def test_ctrl_c_cancels_the_calls() -> None:
    program = """
        import asyncio, os, signal, headrace
        async def call(item):
            try:
                if item == 1:
                    os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(100)
            finally:
                print("ended", item)
        try:
            headrace.map(call, range(2), limit=2)
        except KeyboardInterrupt:
            print("interrupted")
        async def next_call(item):
            return item, len(asyncio.all_tasks())
        print(headrace.map(next_call, range(1), limit=1)[0][0])
    """
    assert sorted(child(program).splitlines()) == sorted(["ended 0", "ended 1", "interrupted", "0"])
