"""`Record`: a record of the input, and the kinds of records. `RecordReader` makes them."""

from __future__ import annotations

import base64
import json
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


def reject_constant(constant: str) -> NoReturn:
    """Refuse `NaN` and the infinities, which Python would accept as JSON."""
    raise ValueError(f"not JSON: {constant} is not a JSON value")


# `json.loads` would make a decoder for each call with this option.
_decode = json.JSONDecoder(parse_constant=reject_constant).decode


class RecordKind(Protocol):
    """The way in which the records of an input are kept: a source that the function cannot change."""

    def value(self, source: Any) -> Any:
        """Return a new value of the record.

        Raises:
            ValueError: the record is not valid.
        """

    def json(self, source: Any) -> str:
        """Return the record as JSON."""
        ...

    def text(self, source: Any) -> str:
        """Return the record as shown to the user."""
        ...


@dataclass(slots=True)
class Record:
    """A record of the input."""

    number: int
    """The number of its line, or of the record in a file without lines; both start at 1."""
    value: Any
    source: Any
    """The content from which `kind` makes new values. The function may change `value`, but not this."""
    size: float
    """Its part of the size of the input."""
    kind: RecordKind

    def copy_value(self) -> Any:
        """Return the value anew: the function may have changed it."""
        return self.kind.value(self.source)

    @property
    def json(self) -> str:
        """The record as JSON: exactly as in the input if that is JSON."""
        return self.kind.json(self.source)

    @property
    def text(self) -> str:
        """The record as shown to the user."""
        return self.kind.text(self.source)


class PlainText:
    """A line of plain text."""

    def value(self, source: str) -> str:
        """See `RecordKind`."""
        return source

    def json(self, source: str) -> str:
        """See `RecordKind`."""
        return json.dumps(source, ensure_ascii=False)

    def text(self, source: str) -> str:
        """See `RecordKind`."""
        return source


class Json:
    """A text of JSON, which is copied exactly: parsing loses digits."""

    def value(self, source: str) -> Any:
        """See `RecordKind`."""
        try:
            return _decode(source)
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
        except RecursionError:
            raise ValueError("not valid: the JSON is nested too deeply") from None

    def json(self, source: str) -> str:
        """See `RecordKind`."""
        return source.strip()

    def text(self, source: str) -> str:
        """See `RecordKind`."""
        return source


class FailedJson(Json):
    """A text of JSON, out of a file of failed records."""


class Row:
    """A row of a table of text. Its source is the row, its value a dictionary by the names of the columns."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns

    def value(self, source: Sequence[str]) -> dict[str, str]:
        """See `RecordKind`."""
        return dict(zip(self._columns, source, strict=True))

    def json(self, source: Sequence[str]) -> str:
        """See `RecordKind`."""
        return json.dumps(self.value(source), ensure_ascii=False)

    def text(self, source: Sequence[str]) -> str:
        """See `RecordKind`."""
        return self.json(source)


class Pickled:
    """A row of a columnar file, which may have values that JSON has not, such as dates. Its source is a pickle of it."""

    def value(self, source: bytes) -> Any:
        """See `RecordKind`."""
        return pickle.loads(source)  # noqa: S301 - made by this process

    def json(self, source: bytes) -> str:
        """See `RecordKind`."""
        return json.dumps(self.value(source), ensure_ascii=False, default=_as_text)

    def text(self, source: bytes) -> str:
        """See `RecordKind`."""
        return self.json(source)


def _as_text(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
