"""What tests of the whole agent share: a bundle that has been tried out, a broker, and a process put back in order."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.agents import kit
from tests.support.mosquitto import mosquitto

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["kit", "mosquitto"]


@pytest.fixture
def process_as_before() -> Iterator[None]:
    """Undoes what a command does that believes the process to be its own: it sets up logging and signals."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for number, handler in signals.items():
        signal.signal(number, handler)
