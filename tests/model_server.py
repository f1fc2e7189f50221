"""`ModelServer`: a `ModelService` behind the chat API of OpenAI, over HTTP/1.1 on the loopback interface.

The message of a request is the key of its call, `max_tokens` the number of its tokens. The server runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from tests.model_service import ModelService

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from tests.model_service import Reply


class ModelServer:
    """Serves while its `with` block runs.

    Attributes:
        url: The base URL for an SDK of OpenAI.
        service: The service, which counts the calls.

    Args:
        **options: The options of the service.
    """

    def __init__(self, **options: Any) -> None:
        self.service = ModelService(time.monotonic, **options)
        self.url = ""
        self._port: Future[int] = Future()
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._run(),), name="model server"
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._port.result(30)}/v1"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1_000)
        except OSError as error:
            self._port.set_exception(error)
            return
        async with server:
            self._port.set_result(server.sockets[0].getsockname()[1])
            await self._stop.wait()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection, one after another."""
        try:
            while True:
                headers, body = await _read_request(reader)
                reply = self.service.reply(
                    body["messages"][0]["content"],
                    body["max_tokens"],
                    is_repeated=headers.get("x-stainless-retry-count", "0") != "0",
                )
                if reply.seconds == math.inf:
                    await reader.read()  # until the client closes the connection
                    return
                await asyncio.sleep(reply.seconds)
                writer.write(_encode(reply))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> tuple[dict[str, str], dict[str, Any]]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return headers, json.loads(await reader.readexactly(int(headers["content-length"])))


def _encode(reply: Reply) -> bytes:
    body = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
    headers = {
        "content-type": "application/json",
        **reply.headers,
        "content-length": len(body.encode()),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    # Of statuses such as 529, `http.HTTPStatus` knows no phrase. Clients need none.
    return f"HTTP/1.1 {reply.status} -\r\n{lines}\r\n{body}".encode()
