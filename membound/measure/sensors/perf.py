"""One hardware counter of the kernel's perf events, by the system call itself: nothing else is needed to count what memory controllers do."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final, final

from membound.measure.sensors.doors import Counter

# Numbers of perf_event_open: kernel sources, arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_CALL: Final = {"x86_64": 298, "aarch64": 241}
# struct perf_event_attr (perf_event_open(2)): type, size, config; the rest is 0: count always, on every task, without sampling.
_ATTRIBUTES: Final = struct.Struct("<IIQ")
# PERF_ATTR_SIZE_VER0 (kernel, include/uapi/linux/perf_event.h): the smallest, which every kernel takes.
_SIZE: Final = 64
# PERF_FLAG_FD_CLOEXEC (the same file).
_FLAGS: Final = 8


@final
class PerfCounter(Counter):
    """Counts for all processes on one core's package. Raises `OSError`: EACCES or EPERM without permission, ENOSYS without the call."""

    def __init__(self, kind: int, config: int, cpu: int) -> None:
        number = _CALL.get(platform.machine())
        if number is None:
            raise OSError(38, os.strerror(38))
        attributes = ctypes.create_string_buffer(_ATTRIBUTES.pack(kind, _SIZE, config).ljust(_SIZE, b"\0"), _SIZE)
        library = ctypes.CDLL(None, use_errno=True)
        self._file: int = library.syscall(
            ctypes.c_long(number), attributes, ctypes.c_int(-1), ctypes.c_int(cpu), ctypes.c_int(-1), ctypes.c_ulong(_FLAGS)
        )
        if self._file < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    def count(self) -> int:
        return int.from_bytes(os.read(self._file, 8), "little")

    def close(self) -> None:
        os.close(self._file)
