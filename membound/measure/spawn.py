"""Processes of our own, started fresh: nothing is inherited from the process that starts them but where Python finds its modules."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from membound import units
from membound.errors import MeasureError

# A fresh interpreter rather than a fork (CUDA does not survive one) and rather than multiprocessing's spawn, which would import the
# user's main module again, PyTorch included.
_PROGRAM = "import sys, json; sys.path[:] = json.loads(sys.argv.pop(1)); from {module} import main; main(sys.argv[1:])"


def start(module: str, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start `main(arguments)` of `module` in a process of its own; what it prints goes to the end of `log`.

    In a session of its own, so that Ctrl-C at the terminal does not reach it: it ends when its parent says so, or is gone.
    """
    command = [sys.executable, "-P", "-c", _PROGRAM.format(module=module), json.dumps(sys.path), *arguments]
    with open(log, "ab") as sink:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)


def shared_folder() -> Path:
    """Where files are memory: /dev/shm on Linux. What lies there outlives every process, until the machine restarts."""
    shm = Path("/dev/shm")
    return shm if os.access(shm, os.W_OK) else Path(tempfile.gettempdir())


def memory_error(error: OSError, folder: Path | None = None) -> MeasureError:
    """One line for shared memory that is refused in `folder`, by default where it lies."""
    place = folder or shared_folder()
    if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM}:
        return MeasureError(f"{place}: no shared memory for the samples: {error.strerror}")
    with contextlib.suppress(OSError):
        room = shutil.disk_usage(place)
        size = f"{units.show(room.free, 'B')} of {units.show(room.total, 'B')} free"
        return MeasureError(f"{place}: no shared memory left for the samples, {size}: free some, or give a container more (docker run --shm-size=1g)")
    return MeasureError(f"{place}: no shared memory left for the samples")


def boot_id() -> str | None:
    """The kernel's name for the time since it was started; None where it gives none. Monotonic times are comparable within one only."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def alive(pid: int) -> bool:
    """Whether a process of that number runs (one that has ended but was not waited for does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return _answers(pid) and not Path("/proc/self/stat").exists()
    return state not in {"Z", "X"}


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
