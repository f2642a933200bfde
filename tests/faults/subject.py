"""A process to be killed: writes and the id of every event, once its append has returned, as a line to standard output.

Usage: python subject.py FOLDER PORT EVENTS_PER_SECOND
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from agent.clock import SystemClock
from agent.delivery.backoff import Backoff
from tests.support.delivery import event, make_outbox, make_publisher

KINDS = ("new", "update", "update", "end")


def main() -> None:
    folder, port, rate_hz = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    outbox = make_outbox(folder, clock=SystemClock())
    outbox.start()
    publisher = make_publisher(outbox, port, reconnect=Backoff(0.05, 0.3))
    publisher.start()
    forever = threading.Event()
    number = 0
    while not forever.wait(1 / rate_hz if rate_hz else None):
        number += 1
        entry_id = publisher.emit(event(number, KINDS[number % len(KINDS)]))  # type: ignore[arg-type]
        os.write(sys.stdout.fileno(), f"{entry_id}\n".encode())


if __name__ == "__main__":
    main()
