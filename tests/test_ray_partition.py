"""A node that the network cuts off: its work is fenced, and the driver waits until that is certain."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace import RayExecutor, Task, WorkerLost
from headrace.pool import CancelResult
from tests import process_jobs as jobs
from tests.ray_support import HEAD, beat, hosts_are, import_ray, last_beat, skip_without_ray
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

skip_without_ray()

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.timeout(120)]

FENCE = 6.0
HERE, THERE = "10.77.0.1", "10.77.0.2"
CABLE = "headrace0"


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture
def there() -> Iterator[list[str]]:
    """The prefix of commands that run in another network namespace, which a cable connects with this one."""
    if shutil.which("ip") is None or shutil.which("nsenter") is None:
        pytest.skip("ip or nsenter is not installed")
    keeper = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    enter = ["nsenter", f"--net=/proc/{keeper.pid}/ns/net"]
    try:
        ours = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{keeper.pid}/ns/net").readlink() == ours:
            time.sleep(0.01)
        run(
            "ip",
            "link",
            "add",
            CABLE,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            str(keeper.pid),
        )
        for prefix, name, address in ([], CABLE, HERE), (enter, "eth0", THERE):
            run(*prefix, "ip", "address", "add", f"{address}/24", "dev", name)
            run(*prefix, "ip", "link", "set", name, "up")
        run(*enter, "ip", "link", "set", "lo", "up")
        yield enter
    finally:
        keeper.kill()
        keeper.wait()


@pytest.fixture
def cluster(there: list[str]) -> Iterator[None]:
    """A node in each namespace."""
    ray, Cluster = import_ray()  # noqa: N806 (a class)
    made = Cluster(initialize_head=True, head_node_args={**HEAD, "node_ip_address": HERE})
    ray.init(made.address, log_to_driver=False, _node_ip_address=HERE)
    program = str(Path(sys.executable).with_name("ray"))
    options = ["--num-cpus=2", "--object-store-memory=100000000", "--block"]
    node = subprocess.Popen(
        [
            *there,
            program,
            "start",
            f"--address={made.address}",
            f"--node-ip-address={THERE}",
            *options,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield
    ray.shutdown()
    node.terminate()
    node.wait()
    made.shutdown()


def host_of(work: Any) -> Any:
    return work._handle.worker


async def test_law_20_work_behind_a_cut_cable_is_fenced(cluster: None, tmp_path: Path) -> None:
    async with RayExecutor(workers=2, prefetch=0, fence=FENCE, grace=0.2) as executor:
        await hosts_are(executor, 2, 60)
        await eventually(lambda: executor.capabilities.slots == 4)
        works = {
            number: executor.submit(Task(beat, tmp_path / f"beat {number}", 90.0))
            for number in range(4)
        }
        lost, cancelled = [
            number for number, work in works.items() if host_of(work).node.ip == THERE
        ]
        await eventually((tmp_path / f"beat {lost}").exists)
        await eventually((tmp_path / f"beat {cancelled}").exists)
        host = host_of(works[lost])
        run("ip", "link", "set", CABLE, "down")
        cut = time.monotonic()
        await eventually(lambda: not host.answers)
        assert works[cancelled].cancel() is CancelResult.UNKNOWN
        # The other node is used meanwhile.
        near = next(number for number in works if number not in (lost, cancelled))
        works[near].cancel()
        with pytest.raises(asyncio.CancelledError):
            await works[near]
        assert await executor.submit(Task(jobs.double, 21)) == 42
        with pytest.raises(WorkerLost) as error:
            await works[lost]
        known = time.monotonic()
        assert error.value.confirmed == "fence"
        assert known - cut <= 1.5 * FENCE
        with pytest.raises(asyncio.CancelledError):
            await works[cancelled]
        for number in lost, cancelled:
            assert last_beat(tmp_path / f"beat {number}") < known
        await asyncio.sleep(1.0)
        for number in lost, cancelled:
            assert last_beat(tmp_path / f"beat {number}") < known
        assert executor.hosts == (HERE,)
