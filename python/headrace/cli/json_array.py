"""`read_array`: the elements of a JSON array, in batches. `records` calls it.

The standard library parses each element; this module finds where it begins.

The buffer begins with the first incomplete element. An element that does not end in the buffer is
parsed again once the buffer has twice its length, so that the time is linear in the length of the element.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING

from headrace.cli.lines import read_chunk
from headrace.cli.record import Json, Record, reject_constant
from headrace.cli.record_batches import MAX_BATCH, InvalidRecordError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_skip_space = re.compile(r"[ \t\n\r]*").match

# The longest literal, `false`, without its last letter, or a surrogate pair as escapes.
_MAX_TOKEN = 12


def read_array(file: BinaryIO, max_size: int) -> Iterator[list[Record]]:
    """Yield the elements of a JSON array in batches, as records that are numbered from 1.

    Raises:
        InvalidRecordError: the input is not an array, or an element is not valid.
    """
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    array = _Array(max_size)
    is_final = False
    while not is_final:
        chunk = read_chunk(file)
        is_final = not chunk
        problem: InvalidRecordError | None = None
        batch: list[Record] = []
        damage: UnicodeDecodeError | None = None
        try:
            text = decode(chunk, is_final)
        except UnicodeDecodeError as error:
            # The records before the damage are valid.
            damage, text = error, error.object[: error.start].decode()
        try:
            array.feed(text, is_final=is_final and damage is None)
            while (record := array.next()) is not None:
                batch.append(record)
                if len(batch) >= MAX_BATCH:
                    yield batch
                    batch = []
            if damage is not None:
                raise array.problem(f"not UTF-8: {damage.reason}")
        except InvalidRecordError as error:
            problem = error
        if batch:
            yield batch
        if problem is not None:
            raise problem


class _Array:
    """The parser of an array that is fed with text."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._text = ""
        self._at = 0
        self._is_final = False
        self._count = 0
        # The next token: `[`, `value or ]`, `value`, `, or ]`, or empty after the array.
        self._expects = "["
        # An incomplete element is parsed again at this length of the text.
        self._enough = 0
        self._decode = json.JSONDecoder(parse_constant=reject_constant).raw_decode
        self._kind = Json()

    def feed(self, text: str, *, is_final: bool) -> None:
        """Add text."""
        self._text = self._text[self._at :] + text
        self._at = 0
        self._is_final = is_final

    def problem(self, problem: str) -> InvalidRecordError:
        """Make the error of the element that is parsed."""
        return InvalidRecordError(f"record {self._count + 1}", problem)

    def next(self) -> Record | None:
        """Return the next element, or None if it is not complete or if there is none."""
        while True:
            text = self._text
            self._at = at = _skip_space(text, self._at).end()  # type: ignore[union-attr] # it matches nothing too
            if at == len(text):
                if self._is_final and self._expects:
                    raise self.problem("the file ends before the array does")
                return None
            if self._expects in ("value", "value or ]") and not (
                self._expects == "value or ]" and text[at] == "]"
            ):
                return self._element(at)
            self._expects = self._after(text[at])
            self._at += 1

    def _after(self, character: str) -> str:
        """Return what may follow a bracket or a comma."""
        if self._expects == "[" == character:
            return "value or ]"
        if self._expects == ", or ]" and character == ",":
            return "value"
        if self._expects.endswith("]") and character == "]":
            return ""
        if self._expects == "[":
            raise self.problem(
                f"not a JSON array, because it begins with {character!r}; "
                "for one JSON value a line, add --input-format jsonl"
            )
        if self._expects:
            raise self.problem(f"not JSON: a comma or ] must be before {character!r}")
        raise InvalidRecordError(
            "after the array",
            f"{character!r}; for one JSON value a line, add --input-format jsonl",
        )

    def _element(self, at: int) -> Record | None:
        text = self._text
        if not self._is_final and len(text) - at < self._enough:
            return None
        try:
            value, end = self._decode(text, at)
        except json.JSONDecodeError as error:
            if not self._is_final and self._is_cut(error):
                self._wait(at)
                return None
            if _is_open_string(error) or error.pos >= len(text.rstrip()):
                raise self.problem("the file ends before the array does") from None
            raise self.problem(f"not JSON: {error.msg}") from None
        except ValueError as error:
            raise self.problem(str(error)) from None
        except RecursionError:
            raise self.problem("not valid: the JSON is nested too deeply") from None
        # A number may go on in the next chunk. At most two characters of the rest, such as `e+`, are in this one.
        is_number = not self._is_final and text[end - 1].isdigit()
        if is_number and len(text) - end < 3 and text[end : end + 1] in ".eE":
            self._wait(at)
            return None
        if end - at > self._max_size:
            raise self._too_long()
        self._count += 1
        self._at, self._enough, self._expects = end, 0, ", or ]"
        return Record(self._count, value, text[at:end], 0, self._kind)

    def _is_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether the text may be valid with more text after it."""
        return error.pos >= len(self._text) - _MAX_TOKEN or _is_open_string(error)

    def _wait(self, at: int) -> None:
        length = len(self._text) - at
        if length > self._max_size:
            raise self._too_long()
        self._enough = 2 * length

    def _too_long(self) -> InvalidRecordError:
        return self.problem(f"longer than {self._max_size:,} characters (--max-record)")


def _is_open_string(error: json.JSONDecodeError) -> bool:
    return error.msg.startswith("Unterminated string")
