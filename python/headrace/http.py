"""`observe`: reports each answer that an HTTP client receives to the lease of the task that made the call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from headrace._internal.reprs import describe_value
from headrace.errors import HeadraceError
from headrace.task._current_lease import variable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class _Response(Protocol):
    """A response of httpx; its body is not read yet."""

    status_code: int
    headers: Mapping[str, str]


__all__ = ["observe"]

Client = TypeVar("Client")


class _StatusError(HeadraceError):
    """The error of an answer with a status from 400 on, for its verdict; it is never raised."""

    def __init__(self, response: _Response) -> None:
        super().__init__(f"the server answered {response.status_code}")
        self.response = response


def observe(client: Client) -> Client:
    """Report each answer that an httpx client receives to the current task's lease; return the client.

    An answer is reported when its headers have arrived: `current_lease().report(headers=...)`, with an error if the status is
    400 or more. So a `Rate.auto()` learns from the limits that the headers state, and an `AdaptiveLimit` also from answers that
    the task never sees as errors. An SDK that retries by itself hides them:
    `AsyncOpenAI(http_client=observe(httpx.AsyncClient()))`. A call outside of a task, or in a task whose cost names no
    resources, reports nothing. Observing a client again changes nothing.

    Args:
        client: An `httpx.Client` or `httpx.AsyncClient`, or one with the same `event_hooks`. Its other hooks stay.

    Raises:
        TypeError: The client has no `event_hooks`.

    *Cost*: a call for each answer. It does not read the body.
    """
    hooks = cast(
        "dict[str, list[Callable[..., object]]] | None", getattr(client, "event_hooks", None)
    )
    if not isinstance(hooks, dict):
        raise TypeError(
            f"observe: client must be an httpx.Client or httpx.AsyncClient, not {describe_value(client)}"
        )
    hook = _report_async if hasattr(client, "aclose") else _report
    others = hooks.get("response", [])
    if hook not in others:
        # Set as a whole: the getter may return a copy.
        setattr(client, "event_hooks", {**hooks, "response": [*others, hook]})  # noqa: B010  # any class of clients
    return client


def _report(response: _Response) -> None:
    lease = variable.get()
    if lease is None or lease.is_released:
        return
    error = _StatusError(response) if response.status_code >= 400 else None
    lease.report(error=error, headers=response.headers)


async def _report_async(response: _Response) -> None:
    _report(response)
