"""`Setup`: all that a worker needs before its first task. `preparation`, `named`: parts of it. `is_preparing`: an event."""

from __future__ import annotations

import sys
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import spawn
from typing import TYPE_CHECKING, Any, cast

from headrace._internal.reprs import describe_value

if TYPE_CHECKING:
    from collections.abc import Iterable

is_preparing: threading.Event = threading.Event()
"""Set while this process is a worker that imports the main module of its driver."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message to a worker."""

    main: dict[str, Any]
    """The data with which `multiprocessing` prepares a new process: its path, directory and main module."""
    cell: int
    """The index of its cell."""
    cells: int
    """The number of cells."""
    ring: int
    """The slots of a cell for vetoes."""
    window: int
    """The maximum number of values that a task has yielded and the driver has not read."""
    tasks_per_worker: int
    """The maximum number of tasks that run at the same time."""
    carry: tuple[tuple[str, str], ...]
    """The names of the context variables that travel: the module and the global of each."""


def preparation(cell: int) -> dict[str, Any]:
    """Return the data with which a worker prepares itself, as a process of `multiprocessing` does."""
    data = spawn.get_preparation_data(f"headrace worker {cell}")
    # An `AuthenticationString` refuses to be pickled.
    data["authkey"] = bytes(data["authkey"])
    return data


def named(carry: Iterable[ContextVar[Any]]) -> tuple[tuple[str, str], ...]:
    """Return the module and the global of each context variable, by which a worker finds it.

    Raises:
        ValueError: A variable is not a global of an imported module.
        TypeError: One is not a context variable.
    """
    names: list[tuple[str, str]] = []
    for variable in carry:
        if not isinstance(cast("object", variable), ContextVar):
            raise TypeError(f"carry must hold context variables, not {describe_value(variable)}")
        name = _name(variable)
        if name is None:
            raise ValueError(
                f"carry has the context variable {variable.name!r}, which is not a global of a module: a worker cannot find it"
            )
        names.append(name)
    return tuple(names)


def found(names: Iterable[tuple[str, str]]) -> tuple[ContextVar[Any], ...]:
    """Return the context variables of these names."""
    return tuple(getattr(import_module(module), attribute) for module, attribute in names)


def _name(variable: ContextVar[Any]) -> tuple[str, str] | None:
    for module_name, module in list(sys.modules.items()):
        # Not `vars`: some modules are other objects, whose attributes are computed.
        globals_ = getattr(module, "__dict__", None)
        if not isinstance(globals_, dict):
            continue
        for attribute, value in list(cast("dict[str, object]", globals_).items()):
            if value is variable:
                return module_name, attribute
    return None
