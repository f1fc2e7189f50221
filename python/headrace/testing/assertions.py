"""Whether everything was closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace._internal.reprs import describe_value
from headrace.testing.recording_sink import RecordingSink
from headrace.testing.scripted_source import ScriptedSource

if TYPE_CHECKING:
    from typing import Any


def assert_closed(*ends: ScriptedSource | RecordingSink[Any]) -> None:
    """Asserts that a pipeline has let go of its ends.

    Of a source: every iterator that was made of it was closed, to the end of its closing, or came to its own end; one that
    nobody opened holds nothing, and passes: assert its `opens` if it must have been used. Of a sink: its supply was ended, by
    a value or an error.

    Args:
        *ends: The sources and sinks that a test put at the ends of a pipeline, one at least.

    Raises:
        AssertionError: One of them was left open, or its closing was interrupted; the message names each, and says which.
        TypeError: One of them is neither a `ScriptedSource` nor a `RecordingSink`, or there is none.
    """
    if not ends:
        raise TypeError("assert_closed: name the sources and sinks that must have been closed")
    wrong = [f"{complaint}: {end!r}" for end in ends if (complaint := _complaint(end))]
    if wrong:
        raise AssertionError("; ".join(wrong))


def _complaint(end: object) -> str | None:
    """What is wrong about how things stand with it."""
    if isinstance(end, ScriptedSource):
        if end.left_open:
            return "left open"
        return "its closing was interrupted" if end.closed != end.closes else None
    if isinstance(end, RecordingSink):
        return None if end.returned or end.thrown else "left open"
    raise TypeError(
        f"assert_closed: takes ScriptedSource and RecordingSink objects, got {describe_value(end)}"
    )
