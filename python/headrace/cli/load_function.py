"""Loading of the function named by `MODULE:FUNCTION` or `FILE.py:FUNCTION`. `main` calls it before any file is opened."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def load_function(spec: str, folder: str | None = None) -> Callable[[Any], Any]:
    """Import the function named by `spec`: `package.module:function`, `path/to/file.py:function` or `module:Class.method`.

    The current directory is searched first, as for `python -m`; for a file, its directory, as for `python file.py`.

    Args:
        spec: the name of the function.
        folder: the directory that counts as the current one; None for that of this process.

    Raises:
        UsageError: the module cannot be imported or has no such function, or the function cannot be called with a record.
    """
    module_name, colon, path = spec.rpartition(":")
    if not (module_name and colon and path):
        raise UsageError(
            f"the function must be given as MODULE:FUNCTION or FILE.py:FUNCTION, got {spec!r}"
        )
    is_file = module_name.endswith(".py")
    try:
        folder = folder or os.getcwd()  # noqa: PTH109 - sys.path holds strings
        load: Callable[[str, str], Any] = _import_file if is_file else _import_module
        target: Any = load(module_name, folder)
    # The import of a module may raise any error, `SystemExit` included.
    except UsageError as error:
        raise UsageError(f"cannot import {module_name!r}: {error}") from None
    except (Exception, SystemExit) as error:
        hint = ""
        if is_file and "attempted relative import" in str(error):
            hint = "; a module of a package is named package.module:function"
        if not is_file and "/" in module_name:
            hint = "; a file is named with its suffix, as in path/to/file.py:function"
        raise UsageError(f"cannot import {module_name!r}: {_in_one_line(error)}{hint}") from error
    for done, name in enumerate(names := path.split(".")):
        try:
            target = getattr(target, name)
        except AttributeError as error:
            where = ".".join([module_name, *names[:done]])
            close = difflib.get_close_matches(name, dir(target), 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"{where!r} has no attribute {name!r}{hint}") from error
    if not callable(target):
        raise UsageError(f"{spec} is not callable; its type is {type(target).__name__}")
    if _matches(target, inspect.isgeneratorfunction) or _matches(
        target, inspect.isasyncgenfunction
    ):
        raise UsageError(
            f"{spec} is a generator function; it must be a function that returns one result for each record"
        )
    function: Callable[[Any], Any] = target
    _check_signature(spec, function)
    return function


def _search(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _import_module(name: str, folder: str) -> ModuleType:
    _search(folder)
    return importlib.import_module(name)


def _import_file(path: str, folder: str) -> ModuleType:
    """Import a file under its own name, so that what it defines can be pickled."""
    file = Path(folder, path)
    if not file.is_file():
        raise UsageError("not a file" if file.exists() else "no such file")
    _search(str(file.parent))
    name = file.stem
    specification = importlib.util.spec_from_file_location(name, file)
    if specification is None or specification.loader is None:
        raise ImportError(f"no loader for {file}")
    module = importlib.util.module_from_spec(specification)
    # A module of the same name stays imported for its other users.
    sys.modules.setdefault(name, module)
    specification.loader.exec_module(module)
    return module


def _check_signature(spec: str, function: Callable[[Any], Any]) -> None:
    """Refuse a function that cannot be called with one positional argument."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return  # a built-in function may have no signature
    try:
        signature.bind(None)
    except TypeError as error:
        if "." in spec.rpartition(":")[2] and "self" in signature.parameters:
            remedy = "name a function, a static method or a method of an instance"
        elif not signature.parameters:
            remedy = "give it a parameter for the record"
        else:
            remedy = "give other parameters a default value, or wrap it in a function of the record"
        raise UsageError(
            f"{spec}{signature} cannot be called with one argument, the record: {error}; {remedy}"
        ) from error


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
