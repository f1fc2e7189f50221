"""`assert_closed`: asserts that a pipeline has closed its sources and sinks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace._internal.reprs import describe_value
from headrace.testing.recording_sink import RecordingSink
from headrace.testing.scripted_source import ScriptedSource

if TYPE_CHECKING:
    from typing import Any


def assert_closed(*ends: ScriptedSource | RecordingSink[Any]) -> None:
    """Assert that a pipeline has closed its sources and sinks.

    A source passes if each of its iterators was closed completely or reached its end. A source without iterators passes,
    too: assert its `opens` if it must have been used. A sink passes if its supply was ended by a value or an error.

    Args:
        *ends: The sources and sinks at the ends of a pipeline, at least one.

    Raises:
        AssertionError: An end was left open, or its closing was interrupted; the message names each of these ends.
        TypeError: An end is neither a `ScriptedSource` nor a `RecordingSink`, or no end is given.
    """
    if not ends:
        raise TypeError("assert_closed: name the sources and sinks that must have been closed")
    wrong = [f"{complaint}: {end!r}" for end in ends if (complaint := _reason_not_closed(end))]
    if wrong:
        raise AssertionError("; ".join(wrong))


def _reason_not_closed(end: object) -> str | None:
    """Return the reason why an end does not count as closed; None if it does."""
    if isinstance(end, ScriptedSource):
        if end.left_open:
            return "left open"
        return "its closing was interrupted" if end.closed != end.closes else None
    if isinstance(end, RecordingSink):
        return None if end.returned or end.thrown else "left open"
    raise TypeError(
        f"assert_closed: takes ScriptedSource and RecordingSink objects, got {describe_value(end)}"
    )
