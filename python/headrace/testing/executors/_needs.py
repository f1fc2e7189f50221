"""The conditions of the cases on the capabilities of an executor.

An executor that has no slots before its start gets them from workers that start. A case that needs a number of slots waits for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.pool.executor.executor import CancelSupport

if TYPE_CHECKING:
    from headrace.pool.executor.executor import Capabilities


def streams(capabilities: Capabilities) -> bool:
    """Return whether tasks may be async functions and yield values."""
    return capabilities.streaming


def no_streaming(capabilities: Capabilities) -> bool:
    """Return whether tasks are plain functions only."""
    return not capabilities.streaming


def remote(capabilities: Capabilities) -> bool:
    """Return whether the work runs outside this process."""
    return capabilities.remote


def local(capabilities: Capabilities) -> bool:
    """Return whether the work runs in this process."""
    return not capabilities.remote


def beside_the_loop(capabilities: Capabilities) -> bool:
    """Return whether plain functions run beside the event loop: on the loop, they cannot wait for the case."""
    return capabilities.remote or not capabilities.streaming


def cancels(capabilities: Capabilities) -> bool:
    """Return whether work can be cancelled."""
    return capabilities.cancel_support is not CancelSupport.NONE


def cancels_nothing(capabilities: Capabilities) -> bool:
    """Return whether work cannot be cancelled."""
    return capabilities.cancel_support is CancelSupport.NONE


def cooperates(capabilities: Capabilities) -> bool:
    """Return whether a cancelled async function can clean up."""
    return capabilities.cancel_support is CancelSupport.COOPERATIVE


def forces(capabilities: Capabilities) -> bool:
    """Return whether work is cancelled by force."""
    return capabilities.cancel_support is CancelSupport.FORCE


def has_slots(capabilities: Capabilities) -> bool:
    """Return whether the executor has a number of slots."""
    return capabilities.slots is not None


def two_at_once(capabilities: Capabilities) -> bool:
    """Return whether two tasks may be submitted at a time."""
    return not capabilities.slots or capabilities.slots >= 2


def four_at_once(capabilities: Capabilities) -> bool:
    """Return whether four tasks may be submitted at a time."""
    return not capabilities.slots or capabilities.slots >= 4


SLOT_NEEDS = (two_at_once, four_at_once)
"""The conditions on the number of slots."""
