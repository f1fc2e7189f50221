"""The arguments of a `RayExecutor`, which are checked without Ray."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from headrace import RayExecutor
from headrace.pool.executor.ray.cluster import _check_reachable

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"address": 5}, TypeError, "address must be a text, such as 'auto', or None, got 5"),
        ({"address": "ray://head:10001"}, ValueError, "run the program on a node of the cluster"),
        ({"runtime_env": "x"}, TypeError, "runtime_env must be a mapping, got 'x'"),
        ({"workers": 0}, ValueError, "workers must be at least 1, got 0"),
        ({"fence": 0.1}, ValueError, "fence must be at least 1 s, got 0.1"),
        ({"linger": -1}, ValueError, "linger must not be negative, got -1"),
    ],
)
def test_bad_argument_is_named(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RayExecutor(**arguments)


def test_address_without_a_cluster_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        _check_reachable(f"127.0.0.1:{port}")
    with pytest.raises(ConnectionError, match=f"no Ray cluster at 127.0.0.1:{port}: .*refused"):
        _check_reachable(f"127.0.0.1:{port}")
    # Ray finds this one.
    _check_reachable("auto")


def test_directory_named_ray_is_not_ray(tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    program = (
        "import sys; sys.path = ['.', *[path for path in sys.path if 'site-packages' not in path]]\n"
        "import asyncio, headrace\n"
        "asyncio.run(headrace.RayExecutor().start())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr.endswith(
        "ImportError: a RayExecutor needs Ray, which is not installed: pip install 'headrace[ray]'\n"
    )
