"""`classify` on the errors that the real clients of services raise, each for an answer of a server on this machine."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Verdict, classify
from tests.answers import ANSWERS
from tests.recorded import raised_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.recorded import Recorded

BY_NAME = {answer.name: answer for answer in ANSWERS}

ANTHROPIC_STREAM = (
    'event: message_start\ndata: {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", '
    '"content": [], "model": "claude", "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 1, "output_tokens": 1}}}\n\n'
    'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n'
)
OPENAI_STREAM = (
    'data: {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": []}\n\n'
    'data: {"error": {"message": "Rate limit reached. Please try again in 1.5s.", "type": "tokens", "code": "rate_limit_exceeded"}}\n\n'
)
STREAMS = {"anthropic-stream": ANTHROPIC_STREAM, "openai-stream": OPENAI_STREAM}


class Handler(BaseHTTPRequestHandler):
    """Answers with the recorded answer whose name is the first part of the path."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        name = self.path.split("/")[1].partition("?")[0]
        if name in STREAMS:
            self.reply(200, [("content-type", "text/event-stream")], STREAMS[name])
            return
        found = BY_NAME[name]
        self.reply(found.status, found.pairs(), found.body)

    def reply(self, status: int, headers: list[tuple[str, str]], body: str) -> None:
        # Not `send_response`, which adds a `Date`.
        self.send_response_only(status)
        for header, value in headers:
            self.send_header(header, value)
        self.send_header("content-length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST = answer  # noqa: N815  # names that the base class looks up

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
        """Write nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


# One function for each client: it raises the client's error for the answer at a URL.


def use_httpx(url: str) -> None:
    httpx = pytest.importorskip("httpx")
    with httpx.Client(trust_env=False, verify=False) as client:
        client.get(url).raise_for_status()


def use_httpx_async(url: str) -> None:
    httpx = pytest.importorskip("httpx")

    async def get() -> None:
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            (await client.get(url)).raise_for_status()

    asyncio.run(get())


def use_requests(url: str) -> None:
    requests = pytest.importorskip("requests")
    with requests.Session() as session:
        session.trust_env = False
        session.get(url, timeout=30).raise_for_status()


def use_aiohttp(url: str) -> None:
    aiohttp = pytest.importorskip("aiohttp")

    async def get() -> None:
        async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url):
            pass

    asyncio.run(get())


def use_urllib(url: str) -> None:
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    try:
        build_opener(ProxyHandler({})).open(url)
    except HTTPError as error:
        error.close()
        raise


MESSAGES: Any = [{"role": "user", "content": "hello"}]


def use_openai(url: str) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(api_key="sk-example", base_url=url, max_retries=0) as client:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)


def use_openai_async(url: str) -> None:
    openai = pytest.importorskip("openai")

    async def ask() -> None:
        async with openai.AsyncOpenAI(api_key="sk-example", base_url=url, max_retries=0) as client:
            await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)

    asyncio.run(ask())


def use_azure(url: str) -> None:
    openai = pytest.importorskip("openai")
    with openai.AzureOpenAI(
        api_key="example", azure_endpoint=url, api_version="2024-10-21", max_retries=0
    ) as client:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)


def use_anthropic(url: str) -> None:
    anthropic = pytest.importorskip("anthropic")
    with anthropic.Anthropic(api_key="sk-ant-example", base_url=url, max_retries=0) as client:
        client.messages.create(model="claude", max_tokens=9, messages=MESSAGES)


def use_anthropic_async(url: str) -> None:
    anthropic = pytest.importorskip("anthropic")

    async def ask() -> None:
        async with anthropic.AsyncAnthropic(
            api_key="sk-ant-example", base_url=url, max_retries=0
        ) as client:
            await client.messages.create(model="claude", max_tokens=9, messages=MESSAGES)

    asyncio.run(ask())


def use_genai(url: str) -> None:
    genai = pytest.importorskip("google.genai")
    with genai.Client(api_key="example", http_options={"base_url": url}) as client:
        client.models.generate_content(model="gemini-2.0-flash", contents="hello")


def use_google_api_core(url: str) -> None:
    exceptions = pytest.importorskip("google.api_core.exceptions")
    requests = pytest.importorskip("requests")
    with requests.Session() as session:
        session.trust_env = False
        raise exceptions.from_http_response(session.get(url, timeout=30))


def use_botocore(url: str) -> None:
    session = pytest.importorskip("botocore.session").get_session()
    config = pytest.importorskip("botocore.config").Config(
        retries={"total_max_attempts": 1}, proxies={}
    )
    client = session.create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        aws_access_key_id="example",
        aws_secret_access_key="example",  # noqa: S106
        endpoint_url=url,
        config=config,
    )
    try:
        client.invoke_model(modelId="model", body=b"{}")
    finally:
        client.close()


GENERAL: list[Callable[[str], None]] = [use_httpx, use_httpx_async, use_requests]
CLIENTS: dict[str, list[Callable[[str], None]]] = {
    "openai": [*GENERAL, use_openai, use_openai_async],
    "azure": [*GENERAL, use_azure],
    "anthropic": [*GENERAL, use_anthropic, use_anthropic_async],
    "gemini": [*GENERAL, use_genai, use_google_api_core],
    "bedrock": [*GENERAL, use_botocore],
    "http": GENERAL,
}
# They keep the status and the headers of an answer, not the body.
WITHOUT_BODY: list[Callable[[str], None]] = [use_aiohttp, use_urllib]

# 403s of a key: these clients send none in the test.
NEEDS_KEY = {"openai-country"}


def cases() -> Iterator[Any]:
    for answer in ANSWERS:
        clients = CLIENTS[answer.service] + ([] if answer.by_body else WITHOUT_BODY)
        for client in clients:
            if answer.name in NEEDS_KEY and client in [*GENERAL, *WITHOUT_BODY]:
                continue
            name = client.__name__.removeprefix("use_")
            yield pytest.param(client, answer, id=f"{name}-{answer.name}")


@pytest.mark.parametrize(("client", "answer"), [*cases()])
def test_answer_through_its_client(
    server: str, client: Callable[[str], None], answer: Recorded
) -> None:
    error = raised_by(lambda: client(f"{server}/{answer.name}"))
    verdict = classify(error)
    assert (verdict.kind, verdict.delay) == (answer.kind, answer.delay), (verdict, repr(error))
    if client not in WITHOUT_BODY:
        assert answer.code in verdict.reason
    assert str(answer.status) in verdict.reason or answer.status < 400


def test_error_in_a_stream_of_openai(server: str) -> None:
    openai = pytest.importorskip("openai")

    def read() -> None:
        with (
            openai.OpenAI(api_key="x", base_url=f"{server}/openai-stream", max_retries=0) as client,
            client.chat.completions.create(
                model="gpt-4o", messages=MESSAGES, stream=True
            ) as chunks,
        ):
            for _ in chunks:
                pass

    assert classify(raised_by(read)) == Verdict("throttled", 1.5, "openai, rate_limit_exceeded")


def test_error_in_a_stream_of_anthropic(server: str) -> None:
    anthropic = pytest.importorskip("anthropic")

    def read() -> None:
        with (
            anthropic.Anthropic(
                api_key="x", base_url=f"{server}/anthropic-stream", max_retries=0
            ) as client,
            client.messages.create(
                model="claude", max_tokens=9, messages=MESSAGES, stream=True
            ) as events,
        ):
            for _ in events:
                pass

    verdict = classify(raised_by(read))
    assert (verdict.kind, verdict.delay) == ("throttled", None)
    assert "overloaded_error" in verdict.reason


def test_body_in_the_socket_is_not_read(server: str) -> None:
    requests, httpx = pytest.importorskip("requests"), pytest.importorskip("httpx")
    url = f"{server}/openai-quota"
    with requests.Session() as session:
        session.trust_env = False
        response = session.get(url, stream=True, timeout=30)
        # The status decides, since the code is in the body.
        assert classify(raised_by(response.raise_for_status)).kind == "throttled"
        assert b"insufficient_quota" in response.raw.read()
        response.close()
    with (
        httpx.Client(trust_env=False, verify=False) as client,
        client.stream("GET", url) as streamed,
    ):
        assert classify(raised_by(streamed.raise_for_status)).kind == "throttled"
        streamed.read()
        assert classify(raised_by(streamed.raise_for_status)).kind == "fatal"


@pytest.mark.parametrize("client", [use_httpx, use_requests, use_aiohttp])
def test_403_of_a_key_is_fatal(server: str, client: Callable[[str], None]) -> None:
    url = f"{server}/http-forbidden"
    assert classify(raised_by(lambda: client(url))).kind == "permanent"
    assert classify(raised_by(lambda: client(f"{url}?key=example"))).kind == "fatal"


def test_403_with_authorization_is_fatal(server: str) -> None:
    aiohttp, httpx = pytest.importorskip("aiohttp"), pytest.importorskip("httpx")
    url, headers = f"{server}/http-forbidden", {"Authorization": "Bearer example"}

    async def get() -> None:
        async with aiohttp.ClientSession(raise_for_status=True, headers=headers) as session:
            await session.get(url)

    assert classify(raised_by(lambda: asyncio.run(get()))).kind == "fatal"
    with httpx.Client(trust_env=False, verify=False, headers=headers) as client:
        assert classify(raised_by(client.get(url).raise_for_status)).kind == "fatal"


EVERY_CLIENT = [
    *GENERAL,
    *WITHOUT_BODY,
    use_openai,
    use_openai_async,
    use_azure,
    use_anthropic,
    use_anthropic_async,
    use_genai,
    use_botocore,
]


@pytest.mark.parametrize("client", EVERY_CLIENT)
def test_refused_connection_is_transient(client: Callable[[str], None]) -> None:
    with socket.socket() as taken:
        # Bound and not listening: a connection is refused.
        taken.bind(("127.0.0.1", 0))
        verdict = classify(raised_by(lambda: client(f"http://127.0.0.1:{taken.getsockname()[1]}")))
    assert (verdict.kind, verdict.delay) == ("transient", None), verdict


def test_timeout_is_transient() -> None:
    httpx, requests = pytest.importorskip("httpx"), pytest.importorskip("requests")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        errors = [
            raised_by(lambda: httpx.get(url, timeout=0.01, trust_env=False, verify=False)),
            raised_by(lambda: requests.get(url, timeout=0.01, proxies={"no_proxy": "*"})),
        ]
    assert [classify(error).kind for error in errors] == ["transient", "transient"]


def test_wrong_use_of_a_client_is_permanent() -> None:
    httpx, requests = pytest.importorskip("httpx"), pytest.importorskip("requests")
    errors = [
        raised_by(lambda: httpx.get("ftp://127.0.0.1", trust_env=False, verify=False)),
        raised_by(lambda: httpx.get("http://[::", trust_env=False, verify=False)),
        raised_by(lambda: requests.get("127.0.0.1", timeout=1)),
        raised_by(lambda: requests.get("nothing://127.0.0.1", timeout=1)),
    ]
    assert [classify(error).kind for error in errors] == ["permanent"] * 4


def test_missing_credentials_are_fatal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    session = pytest.importorskip("botocore.session")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    client = session.get_session().create_client(
        "bedrock-runtime", region_name="us-east-1", endpoint_url="http://127.0.0.1:1"
    )
    verdict = classify(raised_by(lambda: client.invoke_model(modelId="model", body=b"{}")))
    client.close()
    assert verdict.kind == "fatal"
    assert "NoCredentialsError" in verdict.reason


@pytest.mark.parametrize(
    ("client", "answer"),
    [
        (use_requests, "openai-requests"),
        (use_requests, "openai-quota"),
        (use_aiohttp, "openai-requests"),
        (use_genai, "gemini-minute"),
        (use_genai, "gemini-day"),
        (use_google_api_core, "gemini-minute"),
        (use_botocore, "bedrock-throttling"),
        (use_botocore, "bedrock-quota"),
        (use_anthropic, "anthropic-tokens"),
    ],
)
def test_unpickled_error_has_the_same_verdict(
    server: str, client: Callable[[str], None], answer: str
) -> None:
    error = raised_by(lambda: client(f"{server}/{answer}"))
    try:
        other = pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception as refused:
        pytest.skip(f"this version's error cannot be pickled: {refused!r}")
    assert classify(other) == classify(error)
