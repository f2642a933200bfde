"""Facts about this process and its machine, from Linux."""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path

_MACHINE_ID = re.compile("[0-9a-f]{32}")  # machine-id(5); on a first boot the file says "uninitialized"
_STARTTIME_FIELD = 22  # proc(5): of /proc/<pid>/stat, in clock ticks since boot


def seconds_since_process_start() -> float:
    """Seconds since the kernel started this process, to a clock tick (10 ms); the interpreter's own start counts."""
    stat = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
    after_name = stat.rpartition(")")[2].split()  # the name may hold spaces; fields from 3 on follow it
    ticks = int(after_name[_STARTTIME_FIELD - 3])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def node_name(machine_id_path: Path = Path("/etc/machine-id"), host_name: str | None = None) -> str:
    """A name for this device that stays the same: from the machine id, which itself is not given away.

    A device without one (a minimal container) is named after its host name.
    """
    try:
        identity = machine_id_path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        identity = ""
    if not _MACHINE_ID.fullmatch(identity):
        identity = host_name or os.uname().nodename
    return "edge-" + hashlib.sha256(f"edge-agent node {identity}".encode()).hexdigest()[:10]
