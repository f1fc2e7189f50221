"""The lease of a host: its work ends when the driver is not heard, and the driver is not wrong about it. All processes are real."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if sys.platform != "linux":
    pytest.skip("a watchdog runs on Linux only", allow_module_level=True)

from headrace._core import HostLease, end_with_driver, open_lease_timer, run_watchdog
from headrace.pool.executor.process.exit_watch import is_group_alive
from tests.host_support import (
    PATIENCE,
    TOKEN,
    Host,
    Network,
    has_ended,
    now,
    start_time,
    wait_for_state,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

FENCE = 1.0


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(FENCE) as host:
        yield host


# The end of the work.


def test_work_ends_with_its_host(host: Host) -> None:
    lease = host.connect()
    host.host.kill()
    host.assert_ended(wait_for_state(lease, "ended", "fenced"))
    assert lease.state == "ended"
    assert host.watchdog.wait(PATIENCE) == 0


def test_a_stopped_host_is_killed(host: Host) -> None:
    lease = host.connect()
    host.host.send_signal(signal.SIGSTOP)
    host.worker.send_signal(signal.SIGSTOP)
    lease.close()
    host.assert_ended(wait_for_state(lease, "ended", "fenced"))
    assert lease.state == "ended"
    assert host.host.wait(PATIENCE) == -signal.SIGKILL


def test_close_ends_the_work(host: Host) -> None:
    lease = host.connect()
    lease.close()
    lease.close()
    host.assert_ended(wait_for_state(lease, "ended", "fenced"))
    assert lease.state == "ended"
    assert host.host.wait(PATIENCE) == -signal.SIGKILL
    assert host.watchdog.wait(PATIENCE) == 0
    lease.close()


def test_a_dropped_lease_ends_the_work(host: Host) -> None:
    lease = host.connect()
    del lease
    assert host.watchdog.wait(PATIENCE) == 0
    host.assert_ended(now())


def test_the_end_of_the_connection_ends_the_work(host: Host) -> None:
    with host.connected(TOKEN) as connection:
        assert connection.recv(8)
    assert host.watchdog.wait(PATIENCE) == 0
    host.assert_ended(now())


_DRIVER = """\
import select, socket, sys
from headrace._core import HostLease
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(bytes.fromhex(sys.argv[2]))
lease = HostLease(connection.detach(), float(sys.argv[3]))
while lease.state != "answering":
    select.select([lease], [], [])
print("answering", flush=True)
while lease.state not in ("ended", "fenced"):
    select.select([lease], [], [])
print(lease.state, flush=True)
"""


def test_a_killed_driver_ends_the_work() -> None:
    # The fence plays no part.
    with Host(600.0) as host:
        driver = subprocess.Popen(
            [sys.executable, "-c", _DRIVER, str(host.address[1]), TOKEN.hex(), "600"],
            stdout=subprocess.PIPE,
        )
        with driver:
            assert driver.stdout is not None
            assert driver.stdout.readline()
            host.wait_for_beats()
            driver.kill()
            assert host.watchdog.wait(PATIENCE) == 0
            host.assert_ended(now())
            assert has_ended(host.host)


def test_work_ends_if_no_driver_connects() -> None:
    with Host(FENCE, start_up=2.0) as host:
        assert host.watchdog.wait(PATIENCE) == 0
        host.assert_ended(now())


def test_lifelines_end_the_work_if_its_watchdog_is_killed(host: Host) -> None:
    lease = host.connect()
    host.watchdog.kill()
    moment = wait_for_state(lease, "fenced", "ended")
    assert lease.state == "fenced", "no one has reported the end"
    host.assert_ended(moment)
    assert host.host.poll() is None, "the host of this test has no lifeline"


def test_lifelines_end_the_work_if_its_watchdog_is_stopped(host: Host) -> None:
    lease = host.connect()
    host.watchdog.send_signal(signal.SIGSTOP)
    host.assert_ended(wait_for_state(lease, "fenced", "ended"))
    assert lease.state == "fenced"
    host.watchdog.send_signal(signal.SIGCONT)
    assert host.watchdog.wait(PATIENCE) == 0
    assert has_ended(host.host)


def test_law_20_the_timer_is_set_before_the_first_stamp_is_sent() -> None:
    # The driver counts from the first stamp on, also if the watchdog is stopped as soon as it has sent it.
    for _ in range(12):
        with Host(FENCE) as host, host.connected(TOKEN) as connection:
            assert connection.recv(8)
            assert host.time_left() <= FENCE


def test_law_20_end_of_a_host_is_reported_to_a_driver_that_was_not_accepted_yet(host: Host) -> None:
    # As where an executor is closed as soon as it has connected, on a busy machine.
    host.watchdog.send_signal(signal.SIGSTOP)
    with host.connected(TOKEN) as connection:
        lease = HostLease(connection.detach(), host.fence, host.start_up)
        host.host.kill()
        host.host.wait(PATIENCE)
        host.watchdog.send_signal(signal.SIGCONT)
        wait_for_state(lease, "ended", "fenced")
        assert lease.state == "ended"


# The network.


@pytest.mark.parametrize("directions", [("down",), ("down", "up")])
def test_law_20_cut_network_is_silent_then_fenced(host: Host, directions: tuple[str, ...]) -> None:
    with Network(host.address) as network:
        lease = host.connect(network.address)
        host.wait_for_beats()
        cut = now()
        network.hold(*directions)
        wait_for_state(lease, "silent")
        moment = wait_for_state(lease, "fenced", "ended", "answering")
        assert lease.state == "fenced"
        host.assert_ended(moment)
        assert moment - cut >= FENCE * 1e9, "the watchdog had all this time"
        network.release()
        # Late bytes change nothing.
        assert host.watchdog.wait(PATIENCE) == 0
        assert lease.state == "fenced"


def test_lost_echoes_end_the_work(host: Host) -> None:
    with Network(host.address) as network:
        lease = host.connect(network.address)
        network.hold("up")
        # The stamps arrive, and so does the end.
        host.assert_ended(wait_for_state(lease, "ended", "fenced"))
        assert lease.state == "ended"


def test_work_goes_on_if_the_network_returns_in_time() -> None:
    with Host(6.0) as host, Network(host.address) as network:
        lease = host.connect(network.address)
        for directions in (("down",), ("up", "down")):
            network.hold(*directions)
            wait_for_state(lease, "silent")
            host.wait_for_beats()
            network.release()
            wait_for_state(lease, "answering")
        host.wait_for_beats()
        assert host.watchdog.poll() is None
        network.hold("down", "up")
        lease.close()
        network.release()
        host.assert_ended(wait_for_state(lease, "ended", "fenced"))


def test_bytes_that_arrive_late_do_not_prolong_the_lease() -> None:
    fence = 2.0
    with Host(fence) as host, host.connected(TOKEN) as connection:
        # The echo of the first stamp arrives shortly before the end of its lease.
        last = connection.recv(8)
        stamp = int.from_bytes(last, "little")
        wait_until(lambda: now() - stamp > 0.7e9 * fence)
        connection.sendall(last)
        # All that follows is read and not echoed.
        while data := connection.recv(1024):
            last = data
        assert int.from_bytes(last[-8:], "little") == 2**64 - 1, "it has sent the end"
        host.assert_ended(now())
        # With a lease that counts from the arrival, it would be 1.7 fences.
        assert max(host.beats()) < stamp + 1.5e9 * fence


# The interpreter of the driver.


def test_a_driver_that_holds_the_gil_keeps_its_host(host: Host) -> None:
    lease = host.connect()
    # This call of C holds the GIL for two fences.
    ctypes.PyDLL(None).sleep(int(2 * FENCE))
    assert lease.state == "answering"
    assert host.watchdog.poll() is None
    host.wait_for_beats()


def test_a_driver_that_was_stopped_does_not_revive_its_host(host: Host) -> None:
    arguments = [str(host.address[1]), TOKEN.hex(), str(FENCE)]
    driver = subprocess.Popen([sys.executable, "-c", _DRIVER, *arguments], stdout=subprocess.PIPE)
    with driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"answering\n"
        driver.send_signal(signal.SIGSTOP)
        # The stamps of a whole fence, and the end, wait in its socket.
        assert host.watchdog.wait(PATIENCE) == 0
        host.assert_ended(now())
        driver.send_signal(signal.SIGCONT)
        assert driver.stdout.readline() in (b"fenced\n", b"ended\n")
        driver.kill()


_FORKING_DRIVER = """\
import os, select, socket, sys
from headrace._core import HostLease
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(bytes.fromhex(sys.argv[2]))
lease = HostLease(connection.detach(), 600.0)
child = os.fork()
if not child:
    lease.close()
    del lease
    sys.exit()
os.waitpid(child, 0)
while lease.state != "answering":
    select.select([lease], [], [])
print(flush=True)
# Until the watchdog has ended everything, which this process did not request.
select.select([lease, sys.stdin], [], [])
print(lease.state, flush=True)
"""


def test_a_forked_child_does_not_end_the_work() -> None:
    with Host(600.0) as host:
        # Newer versions warn of a fork beside a thread.
        command = [sys.executable, "-W", "ignore", "-c", _FORKING_DRIVER]
        driver = subprocess.Popen(
            [*command, str(host.address[1]), TOKEN.hex()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with driver:
            assert driver.stdout is not None
            assert driver.stdout.readline() == b"\n"
            host.wait_for_beats()
            assert driver.communicate(b"\n", PATIENCE)[0] == b"answering\n"


# The token.


def test_wrong_tokens_are_refused(host: Host) -> None:
    for token in (bytes(32), TOKEN[:-1] + bytes([TOKEN[-1] ^ 1])):
        with host.connected(token) as stranger:
            stranger.settimeout(PATIENCE)
            assert stranger.recv(8) == b""
    host.wait_for_beats()
    host.connect()


def test_connections_without_a_token_do_not_block(host: Host) -> None:
    strangers = [host.connected(TOKEN[:5]) for _ in range(40)]
    try:
        host.connect()
    finally:
        for stranger in strangers:
            stranger.close()


def test_a_token_may_arrive_in_pieces(host: Host) -> None:
    with host.connected(TOKEN[:5]) as connection:
        connection.settimeout(PATIENCE)
        host.wait_for_beats()
        connection.sendall(TOKEN[5:])
        assert len(connection.recv(8)) == 8


@pytest.mark.parametrize("echo", [0, 2**64 - 1])
def test_a_driver_that_sends_rubbish_has_gone(host: Host, echo: int) -> None:
    with host.connected(TOKEN) as connection:
        connection.recv(8)
        connection.sendall(echo.to_bytes(8, "little"))
        assert host.watchdog.wait(PATIENCE) == 0
    host.assert_ended(now())


# The process groups.


def test_children_of_a_dead_worker_are_killed(host: Host) -> None:
    lease = host.connect()
    host.worker.kill()
    host.worker.wait()
    wait_until(lambda: not is_group_alive(host.worker.pid))
    # The rest goes on.
    assert lease.state == "answering"
    assert host.host.poll() is None


def leave_a_process(host: Host) -> tuple[int, int]:
    """Start a process that leaves another one and ends; return its number and start time."""
    leader = host.start("sh", "-c", "sleep 1000 & read line < /proc/$$/stat; kill -9 $$")
    # It was not waited for, so its data is still there.
    wait_until(lambda: has_ended(leader))
    started = start_time(leader.pid)
    leader.wait()
    assert is_group_alive(leader.pid)
    return leader.pid, started


def test_a_group_without_its_leader_is_killed_with_the_host(host: Host) -> None:
    lease = host.connect()
    group, started = leave_a_process(host)
    host.cells.set_group(1, group, started)
    lease.close()
    wait_for_state(lease, "ended", "fenced")
    assert not is_group_alive(group)


def test_a_number_that_is_in_use_again_is_not_killed(host: Host) -> None:
    lease = host.connect()
    stranger = host.start("sleep", "1000")
    host.cells.set_group(1, stranger.pid, start_time(stranger.pid) - 1)
    lease.close()
    wait_for_state(lease, "ended", "fenced")
    assert host.watchdog.wait(PATIENCE) == 0
    assert stranger.poll() is None


def test_a_group_of_a_number_in_use_again_is_not_killed(host: Host) -> None:
    lease = host.connect()
    group, started = leave_a_process(host)
    # The worker was last seen long before the process in the group was started.
    host.cells.set_group(1, group, started - 1000)
    lease.close()
    wait_for_state(lease, "ended", "fenced")
    assert host.watchdog.wait(PATIENCE) == 0
    assert is_group_alive(group)


def test_cells_have_the_groups_of_workers(host: Host) -> None:
    cells = host.cells
    assert cells.group(0) == (host.worker.pid, start_time(host.worker.pid))
    assert cells.group(1) is None
    cells.set_group(1, 7, 8)
    assert cells.group(1) == (7, 8)
    cells.clear_group(1)
    assert cells.group(1) is None
    cells.set_group(1, 7, 8)
    cells.clear(1)
    assert cells.group(1) is None
    with pytest.raises(ValueError, match="pid must be a worker, not 1"):
        cells.set_group(1, 1, 8)
    with pytest.raises(IndexError, match="there is no cell 2"):
        cells.group(2)


# Arguments.


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="fd must be a socket"):
        HostLease(-1, 1.0)
    with pytest.raises(ValueError, match="must be positive"):
        HostLease(open_lease_timer(), 0.0)
    with pytest.raises(ValueError, match="must be positive"):
        HostLease(open_lease_timer(), 1.0, float("nan"))
    with pytest.raises(ValueError, match="must not be negative"):
        run_watchdog(-1, -1, -1, 1, 1, TOKEN, 1.0, 1.0)
    with pytest.raises(ValueError, match="fds must be"):
        end_with_driver()
    with pytest.raises(ValueError, match="fds must be"):
        end_with_driver(open_lease_timer(), -1)


_FOLLOWER = """\
import os, sys
from headrace._core import end_with_driver
end_with_driver(*map(int, sys.argv[1:]), group=False)
print(flush=True)
sys.stdin.read()
"""


def test_a_lifeline_may_end_only_its_own_process() -> None:
    first, first_end = os.pipe()
    second, second_end = os.pipe()
    # It is in the group of this process, which goes on.
    process = subprocess.Popen(
        [sys.executable, "-c", _FOLLOWER, str(first), str(second)],
        pass_fds=[first, second],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        for fd in (first, second):
            os.close(fd)
        assert process.stdout is not None
        assert process.stdout.readline()
        os.close(second_end)
        assert process.wait(PATIENCE) == -signal.SIGKILL
        os.close(first_end)
