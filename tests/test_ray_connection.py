"""The address and the environment of a `RayExecutor`, on a cluster to which this program is not connected."""

from __future__ import annotations

import os
import sys
import threading
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace import BrokenError, RayExecutor, Task
from tests import process_jobs as jobs
from tests.ray_support import cluster_of, import_ray, skip_without_ray
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

skip_without_ray()

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of one node."""
    with cluster_of(1, is_connected=False) as made:
        yield made


def is_connected() -> bool:
    ray, _ = import_ray()
    return bool(ray.is_initialized())


async def test_auto_is_the_cluster_of_this_node(cluster: Any) -> None:
    ray, _ = import_ray()
    async with RayExecutor("auto", workers=1) as executor:
        assert ray.get_runtime_context().gcs_address == cluster.address
        assert await executor.submit(Task(jobs.double, 21)) == 42
        assert executor.hosts == ("127.0.0.1",)
    assert not is_connected()


async def test_address_of_a_cluster(cluster: Any) -> None:
    async with RayExecutor(cluster.address, workers=1) as executor:
        assert await executor.submit(Task(jobs.double, 21)) == 42
    assert not is_connected()


@pytest.mark.parametrize("is_ours", [True, False])
async def test_runtime_env_sets_variables(cluster: Any, is_ours: bool) -> None:
    ray, _ = import_ray()
    if not is_ours:
        ray.init(cluster.address, log_to_driver=False)
    try:
        env = {"env_vars": {"HEADRACE_TEST": "of the hosts"}}
        async with RayExecutor("auto", workers=1, runtime_env=env) as executor:
            found = await executor.submit(Task(os.getenv, "HEADRACE_TEST"))
        assert found == "of the hosts"
        assert "HEADRACE_TEST" not in os.environ
        assert is_connected() is not is_ours
    finally:
        ray.shutdown()


async def test_runtime_env_sends_the_working_directory(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.txt").write_text("some data")
    path = tmp_path / "sent_module.py"
    path.write_text("def here():\n    return __file__\n")
    # Not on the import path of this program, which Ray sends too.
    spec = spec_from_file_location("sent_module", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "sent_module", module)
    env = {"working_dir": str(tmp_path)}
    async with RayExecutor("auto", workers=1, runtime_env=env) as executor:
        where: Any = await executor.submit(Task(module.here))
        assert await executor.submit(Task(Path.read_text, Path("data.txt"))) == "some data"
    assert Path(where).name == "sent_module.py"
    assert not Path(where).is_relative_to(tmp_path)


@pytest.mark.parametrize("is_ours", [True, False])
async def test_runtime_env_that_fails_is_reported(
    cluster: Any, tmp_path: Path, is_ours: bool
) -> None:
    ray, _ = import_ray()
    # A local directory is refused for a Ray that the program has joined itself.
    env = {"conda": "no-such-environment"} if is_ours else {"working_dir": str(tmp_path)}
    reason = "conda" if is_ours else "is not a valid URI"
    if not is_ours:
        ray.init(cluster.address, log_to_driver=False)
    try:
        async with RayExecutor("auto", workers=1, runtime_env=env) as executor:
            with pytest.raises(BrokenError, match=rf"(?s)its hosts cannot start: .*{reason}"):
                await executor.submit(Task(jobs.double, 21))
    finally:
        ray.shutdown()


async def test_close_does_not_join_ray_again(cluster: Any) -> None:
    ray, _ = import_ray()
    ray.init(cluster.address, log_to_driver=False)
    async with RayExecutor("auto", workers=1) as executor:
        assert await executor.submit(Task(jobs.double, 21)) == 42
        # The program leaves Ray first. `ray.kill` would join it, or start another one.
        ray.shutdown()
    await eventually(lambda: all(one.name != "headrace ray" for one in threading.enumerate()))
    assert not is_connected()
