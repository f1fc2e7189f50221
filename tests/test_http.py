"""`observe`: answers of HTTP clients are reported to the current lease."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from headrace import (
    AdaptiveLimit,
    CapacitySource,
    HierarchicalTaskPoolRunner,
    Task,
    classify,
)
from headrace.http import observe
from headrace.task._current_lease import variable

if TYPE_CHECKING:
    from collections.abc import Generator


class FakeLease:
    """Records what is reported."""

    is_released = False

    def __init__(self) -> None:
        self.reports: list[tuple[str | None, str | None]] = []

    def report(self, *, error: BaseException | None = None, headers: Any = None) -> None:
        kind = None if error is None else classify(error).kind
        self.reports.append((kind, headers.get("X-Answer")))


@contextmanager
def current(lease: Any) -> Generator[None]:
    token = variable.set(lease)
    try:
        yield
    finally:
        variable.reset(token)


@pytest.fixture(params=["httpx", "httpx2"])
def httpx(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


def transport(httpx: Any) -> Any:
    def answer(request: Any) -> Any:
        status = int(request.url.path[1:])
        return httpx.Response(status, headers={"x-answer": str(status)}, text="body")

    return httpx.MockTransport(answer)


REPORTS = [(None, "200"), ("throttled", "429"), ("transient", "500"), ("permanent", "404")]


def test_each_answer_is_reported(httpx: Any) -> None:
    lease = FakeLease()
    with current(lease), observe(httpx.Client(transport=transport(httpx))) as client:
        for _, status in REPORTS:
            assert client.get(f"http://test/{status}").text == "body"
    assert lease.reports == REPORTS


def test_each_answer_of_an_async_client_is_reported(httpx: Any) -> None:
    lease = FakeLease()

    async def run() -> None:
        async with observe(httpx.AsyncClient(transport=transport(httpx))) as client:
            await asyncio.gather(*[client.get(f"http://test/{status}") for _, status in REPORTS])

    with current(lease):
        asyncio.run(run())
    assert sorted(lease.reports, key=str) == sorted(REPORTS, key=str)


def test_hooks_of_the_client_stay(httpx: Any) -> None:
    seen: list[int] = []
    client = httpx.Client(
        transport=transport(httpx),
        event_hooks={"response": [lambda response: seen.append(response.status_code)]},
    )
    lease = FakeLease()
    with current(lease), client:
        assert observe(observe(client)) is client
        client.get("http://test/200")
    assert (seen, lease.reports) == ([200], [(None, "200")])


def test_nothing_is_reported_without_a_lease(httpx: Any) -> None:
    lease = FakeLease()
    with observe(httpx.Client(transport=transport(httpx))) as client:
        client.get("http://test/429")
        lease.is_released = True
        with current(lease):
            client.get("http://test/429")
    assert lease.reports == []


def test_retries_of_an_sdk_are_reported() -> None:
    httpx, openai = pytest.importorskip("httpx2"), pytest.importorskip("openai")
    statuses = iter([429, 500, 404])
    lease = FakeLease()

    def answer(request: Any) -> Any:
        return httpx.Response(next(statuses), headers={"retry-after-ms": "1"}, json={})

    with (
        current(lease),
        observe(httpx.Client(transport=httpx.MockTransport(answer))) as http,
        openai.OpenAI(api_key="x", http_client=http, max_retries=2) as client,
        pytest.raises(openai.NotFoundError),
    ):
        client.models.list()
    assert [kind for kind, _ in lease.reports] == ["throttled", "transient", "permanent"]


@pytest.mark.parametrize("is_observed", [True, False])
async def test_limit_follows_answers_that_tasks_handle(httpx: Any, is_observed: bool) -> None:
    """A real client and a local server, which refuses the first ten calls once all of them have arrived."""
    capacity = CapacitySource(AdaptiveLimit(10, 1, 100))
    arrived, all_arrived = 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        await reader.readuntil(b"\r\n\r\n")
        arrived += 1
        status = b"429 Too Many Requests" if arrived <= 10 else b"200 OK"
        if arrived == 10:
            all_arrived.set()
        await all_arrived.wait()
        writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async def fetch() -> Any:
        response = await client.get(f"http://127.0.0.1:{port}/")
        return response.status_code

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, httpx.AsyncClient(trust_env=False) as client:
        if is_observed:
            observe(client)
        tasks = [Task(fetch, cost={"slots": 1}) for _ in range(15)]
        statuses = await HierarchicalTaskPoolRunner(tasks, capacity).run()
    assert sorted(statuses) == [200] * 5 + [429] * 10
    # The tasks return results, of which the pool learns no congestion.
    assert capacity.limit == (9 if is_observed else 10)


@pytest.mark.parametrize("client", [None, object(), "client"])
def test_client_without_hooks_is_refused(client: object) -> None:
    with pytest.raises(TypeError, match=r"observe: client must be an httpx\.Client or .*, not "):
        observe(client)
