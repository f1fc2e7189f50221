"""What to do about a thing that was given in place of another: the end of a message that refuses it.

Asked for when an error is raised, and imported by then only.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable
from typing import cast

__all__ = ["for_source", "for_task", "uncalled"]


def uncalled(value: object) -> str:
    """For what should be callable: a coroutine is what calling an async function gave."""
    return "; give the function itself, uncalled" if inspect.iscoroutine(value) else ""


def for_task(value: object) -> str:
    """For what should be a task: a coroutine that has begun to be one, or a function beside its arguments."""
    if inspect.iscoroutine(value):
        name = getattr(value, "__name__", "fn")
        return f"; give the function uncalled, as {name} or Task({name}, ...)"
    if isinstance(value, tuple) and value and callable(cast("object", value[0])):
        return "; arguments are given as Task(fn, *args)"
    return ""


def for_source(value: object) -> str:
    """For what should be a source: something that would give one if it were called, awaited, or asked for it."""
    if inspect.iscoroutine(value):
        return "; await it, and give what it returns"
    if inspect.isfunction(value) or inspect.ismethod(value):
        return "; call it, and give what it returns"
    if isinstance(getattr(value, "source", None), AsyncIterable):
        return "; its items come out of its .source"
    return ""
