"""How an object tells what it is and how it stands: in one short line, whatever state it is in.

A `repr` is read where something has gone wrong, in a message or a debugger, perhaps by another thread, perhaps before
`__init__` was through. So it asks for nothing that could wait, it never walks along a line, and it never fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from headrace._internal.copying import Uncopied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["Telling", "amount", "called", "calls", "counted", "short", "shown", "text", "told"]

LONGEST = 60
"""Characters of a `repr` that is not ours."""

LONGEST_REFUSED = 80
"""Those of one in a message that refuses the thing: it should be known again."""


def told(name: str, facts: Iterable[str]) -> str:
    """The line: a name and what there is to say.

    Args:
        name: What it is.
        facts: How it stands, part by part. If finding one fails, those before it are told all the same.
    """
    said: list[str] = []
    try:
        said.extend(facts)
    except AttributeError:
        said.append("not wholly made")
    except Exception as error:
        said.append(f"cannot be asked: {type(error).__name__}")
    return f"<{name}: {', '.join(said)}>"


def short(thing: object) -> str:
    """The `repr` of anything, on one line and cut to `LONGEST` characters; of what has none, its class."""
    try:
        said = repr(thing)
    except Exception:
        said = f"<{type(thing).__name__}>"
    return _cut(said)


def text(thing: object) -> str:
    """The `str` of anything; of what has none, its class."""
    try:
        return str(thing)
    except Exception:
        return f"<{type(thing).__name__}>"


def shown(value: object) -> str:
    """A value and its type, for the message of an error. A long `repr` is cut; where there is none, it is not shown."""
    try:
        said = repr(value)
    except Exception:
        # An integer may be too long for `repr`.
        said = "a huge number" if isinstance(value, int) else f"<{type(value).__name__}>"
    if len(said) > LONGEST_REFUSED:
        said = f"{said[:LONGEST_REFUSED]}…"
    return f"{said} ({type(value).__name__})"


def called(function: object) -> str:
    """What a callable is called, or else its class."""
    name: object = getattr(function, "__name__", None)
    return _cut(name) if isinstance(name, str) else type(function).__name__


def calls(functions: Sequence[object]) -> str:
    """That these are called, the first three of them by name."""
    names = [called(function) for function in functions[:3]]
    if len(functions) > 3:
        names.append(f"{len(functions) - 3} more")
    return f"calls {' and '.join(names)}"


def _cut(said: str) -> str:
    said = " ".join(said.split())
    return said if len(said) <= LONGEST else f"{said[: LONGEST - 3]}..."


def counted(count: int, noun: str) -> str:
    """So many of something whose plural has an `s`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def amount(count: int, most: float | None, what: str) -> str:
    """So many, of so many at most: `"3 of 8 items"`; without a bound, `"3 items"`."""
    return f"{count} {what}" if most is None else f"{count} of {most} {what}"


class Telling(Uncopied):
    """What streams and push objects have in common: each tells of itself, and of the pipeline that it is a part of."""

    _instead = "build another one, or tee() a stream"

    __slots__ = ()

    def describe(self, *, format: Literal["text", "mermaid"] = "text") -> str:  # noqa: A002 - what it is
        """This pipeline, of a stream up to its sources, of a push object down to its sinks: as text, or as a Mermaid flowchart.

        Each link stands there with what its `repr` says now: what it holds, what it is set to, which callable it calls,
        whether it is open. It may be asked at any time, in any thread, while items go through, and it changes nothing; what a
        link says is so at the moment when it is asked, and the links are asked one after the other.

        Order: away from the link that is asked; of several sources or sinks, theirs.
        Bound: the text, of O(number of links) lines.
        Cost: O(number of links); nothing for the items.

        In a text, a link with one neighbour is followed by that one, and the neighbours of one with several are indented. A link
        that several others share has a number, and is told of once. Mermaid draws arrows along which items go; its renderers
        refuse more than 500 of them unless they are told otherwise.

        Args:
            format: `"text"`, a line for each link; or `"mermaid"`.

        Raises:
            ValueError: `format` is neither of the two.
        """
        # Asked for by few, so that it is imported by them.
        from headrace.describe import describe

        return describe(self, format)

    def __repr__(self) -> str:
        return told(type(self).__name__, self._facts())

    def _facts(self) -> Iterator[str]:
        """How it stands, for `repr`; a subclass says first what is its own."""
        # What the operator is set to is told by a class beside this one, if there is one.
        configured: Callable[[], Iterator[str]] | None = getattr(super(), "_facts", None)
        if configured is not None:
            yield from configured()
        yield from self._standing()

    def _standing(self) -> Iterator[str]:
        """What every link of its kind can say: whether it is open, and what it has kept."""
        raise NotImplementedError
