"""`decode_status`: the details of a `google.rpc.Status`, which grpc sends as `grpc-status-details-bin`. `_answer` calls it.

It reads the wire format of protobuf, since the library that does may not be installed. A field is a number and a value; a value is an
integer, some bytes, or 4 or 8 bytes that are skipped here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    Detail = dict[str, object]


def decode_status(data: object) -> list[Detail]:
    """Return the details of a status, as in its JSON form; none if the bytes are not a status."""
    details: list[Detail] = []
    try:
        for number, value in _fields(data):
            if number == 3:
                details.append(_detail(dict(_fields(value))))
    except (ValueError, IndexError, TypeError, UnicodeDecodeError):
        # Cut or foreign bytes. The code of the status still counts.
        return details
    return details


def _detail(packed: dict[int, object]) -> Detail:
    """Return a detail from the fields of an `Any`: the URL of its type and its bytes."""
    kind, fields = _text(packed.get(1)), list(_fields(packed.get(2, b"")))
    if kind.endswith("google.rpc.RetryInfo"):
        duration = dict(_fields(dict(fields).get(1, b"")))
        return {"retryDelay": {"seconds": duration.get(1, 0), "nanos": duration.get(2, 0)}}
    if kind.endswith("google.rpc.QuotaFailure"):
        violations = [dict(_fields(value)) for number, value in fields if number == 1]
        return {"violations": [{"quotaId": _text(one.get(5))} for one in violations]}
    if kind.endswith("google.rpc.ErrorInfo"):
        entries = [dict(_fields(value)) for number, value in fields if number == 3]
        metadata = {_text(entry.get(1)): _text(entry.get(2)) for entry in entries}
        return {"reason": _text(dict(fields).get(1)), "metadata": metadata}
    return {}


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else ""


def _fields(data: object) -> Iterator[tuple[int, object]]:
    """Yield the fields of a message."""
    if not isinstance(data, bytes):
        raise TypeError("not a message")
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire_type == 2:
            size, at = _varint(data, at)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError("a group, which no status has")
        if at + size > len(data):
            raise ValueError("the message is cut")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the integer at a position, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("an integer of more than 10 bytes")
