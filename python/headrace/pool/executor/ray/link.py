"""`Link`: the connection between a driver and a host. Both ends use it.

Frames that arise close together go in one system call: a frame is sent in the next iteration of the event loop, and at most one such
batch is sent in `linger` seconds. So a frame after a rest is sent at once.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from headrace._core import FrameChannel
from headrace._internal.copying import Uncopied

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from headrace.pool.executor.process.messages import Buffer, Parts

    Frames = Sequence[tuple[int, int, Sequence[Buffer]]]


class Link(Uncopied):
    """A connection through which frames travel.

    Args:
        loop: The event loop.
        connection: The connected socket, which the link takes over.
        linger: The maximum seconds for which a frame waits for others.
        on_frames: Called with the frames that have arrived.
        on_end: Called once, when the other side has closed the connection or it has failed.
        before_flush: Called before frames are written; it may send more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        linger: float,
        *,
        on_frames: Callable[[Frames], object],
        on_end: Callable[[], object],
        before_flush: Callable[[], object] | None = None,
    ) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop = loop
        self._linger = linger
        self._on_frames = on_frames
        self._on_end = on_end
        self._before_flush = before_flush
        self._channel = FrameChannel(connection.detach())
        self._flushed_at = -linger
        # The next flush, and whether it does not wait.
        self._flush: asyncio.Handle | None = None
        self._is_soon = False
        self._is_writing = False
        self.is_closed: bool = False
        """Whether nothing can be sent or received any more."""
        # Done when all that was sent is written; made by `close_when_written`.
        self._closes_when_written = False
        loop.add_reader(self._channel.fileno(), self._on_readable)

    def send(self, kind: int, position: int, parts: Parts) -> None:
        """Send a frame, soon."""
        if self.is_closed:
            return
        self._channel.queue(kind, position, parts)
        self.nudge()

    def nudge(self) -> None:
        """Flush soon, as after `send`."""
        if self._flush is not None or self.is_closed:
            return
        wait = self._flushed_at + self._linger - self._loop.time()
        if wait <= 0:
            self.hurry()
        else:
            self._flush = self._loop.call_later(wait, self._on_flush)

    def hurry(self) -> None:
        """Send the queued frames in the next iteration of the event loop."""
        if self._is_soon or self.is_closed:
            return
        if self._flush is not None:
            self._flush.cancel()
        self._is_soon = True
        self._flush = self._loop.call_soon(self._on_flush)

    def close(self) -> None:
        """Close the connection, and drop the frames that were not written. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if not self._loop.is_closed():
            self._loop.remove_reader(self._channel.fileno())
            self._loop.remove_writer(self._channel.fileno())
        self._channel.close()

    def close_when_written(self) -> None:
        """Close the connection as soon as all that was sent is written."""
        self._closes_when_written = True
        self.hurry()

    def read(self) -> bool:
        """Process the frames that have arrived. Return False at the end of the connection."""
        if self.is_closed:
            return False
        try:
            frames = self._channel.receive()
        except OSError:
            frames = None
        if frames is None:
            return False
        self._on_frames(frames)
        return True

    def _on_readable(self) -> None:
        if not self.read():
            self._end()

    def _end(self) -> None:
        if not self.is_closed:
            self.close()
            self._on_end()

    def _on_flush(self) -> None:
        if self._before_flush is not None:
            self._before_flush()
        self._flush = None
        self._is_soon = False
        self._flushed_at = self._loop.time()
        if not self._is_writing:
            self._write()

    def _write(self) -> None:
        try:
            is_written = self._channel.flush()
        except OSError:
            # The connection has failed. Frames that have arrived are read before its end is noticed.
            return
        if is_written == self._is_writing:
            self._is_writing = not is_written
            if is_written:
                self._loop.remove_writer(self._channel.fileno())
            else:
                self._loop.add_writer(self._channel.fileno(), self._write)
        if is_written and self._closes_when_written:
            self._end()
