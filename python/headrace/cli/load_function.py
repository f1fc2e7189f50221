"""Loading of the function named by `MODULE:FUNCTION`. `main` calls it before any file is opened."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
from typing import TYPE_CHECKING, Any

from headrace.cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


def load_function(spec: str) -> Callable[[Any], Any]:
    """Import the function named by `spec`, `package.module:function` or `module:Class.method`.

    The current directory is searched first, as for `python -m`.

    Raises:
        UsageError: the module cannot be imported, has no such function, or the function is a generator.
    """
    module_name, colon, path = spec.partition(":")
    if not (module_name and colon and path):
        raise UsageError(f"the function must be given as MODULE:FUNCTION, got {spec!r}")
    here = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        target: Any = importlib.import_module(module_name)
    # The import of a module may raise any error, `SystemExit` included.
    except (Exception, SystemExit) as error:
        raise UsageError(f"cannot import {module_name!r}: {_in_one_line(error)}") from error
    for done, name in enumerate(names := path.split(".")):
        try:
            target = getattr(target, name)
        except AttributeError as error:
            where = ".".join([module_name, *names[:done]])
            raise UsageError(f"{where!r} has no attribute {name!r}") from error
    if not callable(target):
        raise UsageError(f"{spec} is not callable; its type is {type(target).__name__}")
    if _matches(target, inspect.isgeneratorfunction) or _matches(
        target, inspect.isasyncgenfunction
    ):
        raise UsageError(
            f"{spec} is a generator function; it must be a function that returns one result for each record"
        )
    function: Callable[[Any], Any] = target
    return function


def is_async(function: Callable[[Any], Any]) -> bool:
    """Whether `function` is async and runs on the event loop; any other runs in a thread."""
    return _matches(function, inspect.iscoroutinefunction)


def _matches(function: object, kind: Callable[[Any], bool]) -> bool:
    # For a callable object, or a partial of one, its `__call__` decides.
    while isinstance(function, functools.partial):
        function = function.func
    return kind(function) or (not inspect.isroutine(function) and kind(type(function).__call__))


def _in_one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
