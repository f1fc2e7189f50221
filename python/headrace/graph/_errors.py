"""The errors of a `DependencyGraph`. `graph.graph`, `graph._batch` and the core's `graph/mod.rs` call this module."""

from __future__ import annotations

from reprlib import repr as shown
from typing import TYPE_CHECKING

from headrace._internal.error_notes import add_note_once, raise_all
from headrace._internal.reprs import describe_value
from headrace.errors import CycleError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from headrace.task.task import Task

_SHOWN = 12
"""The number of keys of a cycle that a message shows."""


def raise_callback_errors(errors: list[BaseException]) -> None:
    """Raise the errors of callbacks; the core calls this after all events are delivered.

    Several errors are raised as a group, but `KeyboardInterrupt` and `SystemExit` are raised alone.
    """
    for error in errors:
        add_note_once(error, "raised by a callback of DependencyGraph")
    for error in errors:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error
    raise_all(errors, "several callbacks of a DependencyGraph failed")


def unknown_key(key: Hashable) -> ValueError:
    return ValueError(f"key must be that of a node of this graph, got {describe_value(key)}")


def unknown_dependency(key: Hashable, other: Hashable) -> ValueError:
    return ValueError(
        f"depends_on of node {key!r} names {other!r}, which is no node of this graph: add that one before it, "
        "or both in one add_all"
    )


def key_taken(key: Hashable) -> ValueError:
    return ValueError(f"key must be a new one, got {key!r}: there is a node with it")


def shared_task(key: Hashable, other: Hashable, task: Task) -> ValueError:
    return ValueError(
        f"item of node {key!r} must be a Task of its own, got that of node {other!r}: {task!r}"
    )


def cycle_error(cycle: Sequence[Hashable]) -> CycleError:
    """Return the error for a cycle, given with its first key repeated at the end."""
    names = [shown(key) for key in cycle]
    if len(names) > _SHOWN:
        left_out = len(names) - _SHOWN
        names[_SHOWN // 2 : -_SHOWN // 2] = [f"({left_out} more)"]
    return CycleError(
        f"depends_on must not close a cycle: {' -> '.join(names)}, where each depends on the next",
        cycle=tuple(cycle),
    )
