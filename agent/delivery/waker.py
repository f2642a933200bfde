"""Ends the poll of a thread that waits for the network, from any other thread."""

from __future__ import annotations

import os
import select


class Waker:
    """Lets other threads end the poll of the connection's thread; a flag spares them a system call each."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._set = False

    def wake(self) -> None:
        """End the current poll, or the next one; callable from any thread."""
        if not self._set:
            self._set = True
            os.write(self._write_fd, b"\0")

    def clear(self) -> None:
        """Forget earlier calls; look for work only after this."""
        try:
            os.read(self.fd, 64)
        except BlockingIOError:
            return
        finally:
            self._set = False

    def wait(self, timeout_s: float) -> None:
        """Return when woken, after so long at the latest."""
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        poller.poll(max(0.0, timeout_s) * 1000)
        self.clear()

    def close(self) -> None:
        """Free the descriptors; later calls of ``wake`` do nothing."""
        self._set = True
        if self.fd >= 0:
            os.close(self.fd)
            os.close(self._write_fd)
            self.fd = -1
