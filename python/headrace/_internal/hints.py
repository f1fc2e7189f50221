"""Hints for error messages that refuse a value of the wrong kind. Used by `Task`, `as_pull` and `pool.policy`.

Imported only when such an error is raised.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Coroutine
from typing import cast


def uncalled(value: object) -> str:
    """Return the hint where a callable is expected: a coroutine is the result of calling an async function."""
    return "; give the function itself, uncalled" if isinstance(value, Coroutine) else ""


def for_task(value: object) -> str:
    """Return the hint where a task is expected: for a coroutine, or a function in a tuple with its arguments."""
    if isinstance(value, Coroutine):
        name = getattr(cast("object", value), "__name__", "fn")
        return f"; give the function uncalled, as {name} or Task({name}, ...)"
    if isinstance(value, tuple) and value and callable(cast("object", value[0])):
        return "; arguments are given as Task(fn, *args)"
    return ""


def for_source(value: object) -> str:
    """Return the hint where a source is expected: for a value that gives one when it is called or awaited."""
    if isinstance(value, Coroutine):
        return "; await it, and give what it returns"
    if inspect.isfunction(value) or inspect.ismethod(value):
        return "; call it, and give what it returns"
    if isinstance(getattr(value, "source", None), AsyncIterable):
        return "; its items come out of its .source"
    return ""
