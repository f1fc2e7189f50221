"""The function that `MODULE:FUNCTION` names."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
from typing import TYPE_CHECKING, Any

from headrace.cli.errors import ComplaintError

if TYPE_CHECKING:
    from collections.abc import Callable


def load(spec: str) -> Callable[[Any], Any]:
    """Imports the function named by `spec`, `package.module:function` or `module:Class.method`.

    Modules beside the user come first, as they do for `python -m`.

    Raises:
        ComplaintError: the module does not import, or there is no such function, or it is none that
            gives one result for one record.
    """
    module_name, colon, path = spec.partition(":")
    if not (module_name and colon and path):
        msg = f"the function must be given as MODULE:FUNCTION, got {spec!r}"
        raise ComplaintError(msg)
    here = os.getcwd()  # noqa: PTH109  what goes into sys.path is a string
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    # A module may fail in any way while it is imported, and may even ask for the process to end.
    except (Exception, SystemExit) as error:
        msg = f"cannot import {module_name!r}: {_in_one_line(error)}"
        raise ComplaintError(msg) from error
    for done, name in enumerate(names := path.split(".")):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            where = ".".join([module_name, *names[:done]])
            msg = f"{where!r} has no {name!r}"
            raise ComplaintError(msg) from error
    if not callable(found):
        msg = f"{spec} is not callable, it is {type(found).__name__}"
        raise ComplaintError(msg)
    if _is(found, inspect.isgeneratorfunction) or _is(found, inspect.isasyncgenfunction):
        msg = f"{spec} is a generator function; a record needs a function that returns one result"
        raise ComplaintError(msg)
    function: Callable[[Any], Any] = found
    return function


def is_async(function: Callable[[Any], Any]) -> bool:
    """Whether calling it makes a coroutine, which belongs on the loop; anything else goes to a thread."""
    return _is(function, inspect.iscoroutinefunction)


def _is(function: object, kind: Callable[[Any], bool]) -> bool:
    # An object with __call__, and a partial of one, count by what the call itself is.
    while isinstance(function, functools.partial):
        function = function.func
    return kind(function) or (not inspect.isroutine(function) and kind(type(function).__call__))


def _in_one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
