"""What a camera's ``source`` names, and how it is shown without its password."""

from __future__ import annotations

import re
from typing import Literal

SCHEMES = ("rtsp", "rtsps", "http", "https")

_USER_AND_PASSWORD = re.compile(r"(?<=://)([^:/?#\s]*):\S*@")  # greedy: a password may itself contain an @
_PASSWORD_IN_QUERY = re.compile(r"(?i)\b(pass|passwd|password|pwd|token|key|secret)=[^&\s]+")


def kind_of(source: str) -> Literal["address", "device", "file"]:
    """``rtsp://camera/1`` is an address, ``/dev/video0`` a device, everything else a file."""
    if "://" in source:
        return "address"
    return "device" if source.startswith("/dev/") else "file"


def redact(text: str) -> str:
    """The text with the passwords of all addresses in it replaced by ``***``."""
    return _PASSWORD_IN_QUERY.sub(r"\1=***", _USER_AND_PASSWORD.sub(r"\1:***@", text))
