"""Whether everything was closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.telling import shown
from headrace.testing.record import RecordingSink
from headrace.testing.script import ScriptedSource

if TYPE_CHECKING:
    from typing import Any

__all__ = ["assert_closed"]


def assert_closed(*ends: ScriptedSource | RecordingSink[Any]) -> None:
    """Asserts that a pipeline has let go of its ends.

    Of a source: every iterator that was made of it was closed, to the end of its closing, or came to its own end. Of a
    sink: its supply was ended, by a value or an error.

    Args:
        *ends: The sources and sinks that a test put at the ends of a pipeline, one at least.

    Raises:
        AssertionError: One of them was left open; the message names each that was.
        TypeError: One of them is neither a `ScriptedSource` nor a `RecordingSink`, or there is none.
    """
    if not ends:
        raise TypeError("assert_closed: name the sources and sinks that must have been closed")
    left = [repr(end) for end in ends if not _is_closed(end)]
    if left:
        raise AssertionError(f"left open: {', '.join(left)}")


def _is_closed(end: object) -> bool:
    if isinstance(end, ScriptedSource):
        return not end.left_open and end.closed == end.closes
    if isinstance(end, RecordingSink):
        return bool(end.returned or end.thrown)
    raise TypeError(
        f"assert_closed: takes ScriptedSource and RecordingSink objects, got {shown(end)}"
    )
