"""Formatting of reprs and of values in error messages. `PullObj` and `PushObj` inherit `DescribeMixin`.

A `repr` is read where something has gone wrong: in a message or a debugger, perhaps from another thread, perhaps before
`__init__` has finished. Nothing here waits, walks along a pipeline or raises.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Literal, cast

from headrace._internal.copying import Uncopied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

MAX_REPR = 60
"""Characters of a foreign object's `repr`."""

MAX_VALUE = 80
"""Characters of a value in an error message: more, since the reader must recognise it."""


def format_repr(name: str, parts: Iterable[str]) -> str:
    """Format a repr: a name and the parts that describe the state.

    Args:
        name: The class, or another description of the object.
        parts: Produced lazily. If one fails, those before it are shown with a note.
    """
    formatted: list[str] = []
    try:
        formatted.extend(parts)
    except AttributeError:
        formatted.append("not fully initialised")
    except Exception as error:
        formatted.append(f"cannot be read: {type(error).__name__}")
    return f"<{name}: {', '.join(formatted)}>"


def short_repr(value: object) -> str:
    """Return the `repr` of a value on one line, cut to `MAX_REPR` characters. If `repr` fails, return its class.

    Cost: bounded for text, bytes, lists, tuples and dicts, of which only the beginning is formatted.
    """
    try:
        formatted = repr(_beginning(value, 3))
    except Exception:
        formatted = f"<{type(value).__name__}>"
    return _shorten(formatted)


def _beginning(value: object, depth: int) -> object:
    """Return a value whose `repr` begins as that of `value` does, without the parts that `short_repr` would cut."""
    # Subclasses have a `repr` of their own.
    if type(value) is str or type(value) is bytes:
        return value[:MAX_REPR]
    if depth == 0:
        return value
    # An element and its comma take at least two characters.
    if type(value) is list:
        return [_beginning(one, depth - 1) for one in cast("list[object]", value)[:MAX_REPR]]
    if type(value) is tuple:
        elements = cast("tuple[object, ...]", value)[:MAX_REPR]
        return tuple(_beginning(one, depth - 1) for one in elements)
    if type(value) is dict:
        items = islice(cast("dict[object, object]", value).items(), MAX_REPR)
        return {key: _beginning(one, depth - 1) for key, one in items}
    return value


def safe_str(value: object) -> str:
    """Return the `str` of a value. If `str` fails, return its class."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


def describe_value(value: object) -> str:
    """Format a value and its type for an error message. A long `repr` is cut."""
    try:
        formatted = repr(value)
    except Exception:
        # An integer may be too long for `repr`.
        formatted = "a huge number" if isinstance(value, int) else f"<{type(value).__name__}>"
    if len(formatted) > MAX_VALUE:
        formatted = f"{formatted[:MAX_VALUE]}…"
    return f"{formatted} ({type(value).__name__})"


def callable_name(function: object) -> str:
    """Return a callable's name. If it has none, return its class."""
    name: object = getattr(function, "__name__", None)
    return _shorten(name) if isinstance(name, str) else type(function).__name__


def callable_names(functions: Sequence[object]) -> str:
    """List the names of the first three callables and the number of the others."""
    names = [callable_name(function) for function in functions[:3]]
    if len(functions) > 3:
        names.append(f"{len(functions) - 3} more")
    return " and ".join(names)


def pluralize(count: int, noun: str) -> str:
    """Format a count of things whose plural ends in `s`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_count(count: int, limit: float | None, noun: str) -> str:
    """Format a count under a limit, `"3 of 8 items"`; without a limit, `"3 items"`."""
    return f"{count} {noun}" if limit is None else f"{count} of {limit} {noun}"


def _shorten(formatted: str) -> str:
    formatted = " ".join(formatted.split())
    return formatted if len(formatted) <= MAX_REPR else f"{formatted[: MAX_REPR - 3]}..."


class ReprMixin:
    """`repr()` from the class and the parts that `_repr_parts` yields."""

    __slots__ = ()

    def __repr__(self) -> str:
        return format_repr(type(self).__name__, self._repr_parts())

    if TYPE_CHECKING:

        def _repr_parts(self) -> Iterator[str]: ...


class NotebookMixin:
    """Shows an object as HTML where it is the last value of a cell. Streams, capacities, runners and runs inherit it."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        # Late: the display knows all layers, and is rarely needed.
        from headrace._notebook import to_html

        return to_html(self)


class DescribeMixin(ReprMixin, NotebookMixin, Uncopied):
    """`repr()`, `describe()` and the display in notebooks of pull streams and push objects."""

    _instead = "build another one, or tee() a stream"

    __slots__ = ()

    def describe(self, *, format: Literal["text", "mermaid"] = "text") -> str:  # noqa: A002 - what it is
        """Describe this pipeline as text or as a Mermaid flowchart.

        A pull stream is followed up to its sources, a push object down to its sinks. Each link is shown by its current `repr`:
        what it holds, its configuration, the callable that it calls, whether it is open. It may be called at any time, in any
        thread, while items pass, and it changes nothing. The links are read one after the other, so that the text is no
        snapshot of one moment.

        Order: away from this link; of several sources or sinks, in their order.
        Bound: the text, of O(number of links) lines.
        Cost: O(number of links); nothing for the items.

        In the text, a link with one neighbour is followed by that neighbour, and the neighbours of a link with several are
        indented. A link shared by several others has a number, and is described once. Mermaid draws arrows in the direction of
        the items; by default its renderers refuse more than 500 of them.

        Args:
            format: `"text"`, a line for each link; or `"mermaid"`.

        Raises:
            ValueError: `format` is neither of the two.
        """
        # Late: part of the fluent interface, defined in a later layer, and rarely called.
        from headrace.describe import describe

        return describe(self, format)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        # The names of the formats are IPython's; it adds the plain text.
        return {
            "text/html": self._repr_html_(),
            "text/vnd.mermaid": self.describe(format="mermaid"),
        }

    def _repr_parts(self) -> Iterator[str]:
        """Describe configuration and state, part by part. A subclass yields its own parts first."""
        # A class of `kernel_properties` beside this one describes the operator's configuration.
        configured: Callable[[], Iterator[str]] | None = getattr(super(), "_repr_parts", None)
        if configured is not None:
            yield from configured()
        yield from self._repr_state()

    def _repr_state(self) -> Iterator[str]:
        """Describe what every link of this kind has: whether it is open, and how many items it retains."""
        raise NotImplementedError
