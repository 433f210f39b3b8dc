"""Why a GPU runs at the clock that it runs at: the driver's clock event reasons, and those that spoil a measurement."""

from __future__ import annotations

from typing import Final

IDLE: Final = 0x1
"""Nothing runs on the GPU: clocks may drop by themselves (nvmlClocksEventReasonGpuIdle)."""

# nvmlClocksEventReason* and nvmlClocksThrottleReason*: pynvml.py of nvidia-ml-py 13.615.71.
NAMES: Final = {
    IDLE: "GPU idle",
    0x2: "applications clocks",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clocks",
    0x200: "board limit",
    0x400: "reliability",
}

# Heat and the power brake change what is measured. The power cap does not: it is how a loaded board runs, and what a slower memory changes.
SPOILING: Final = 0x8 | 0x20 | 0x40 | 0x80


def names(bits: int) -> tuple[str, ...]:
    """The reasons set in `bits`; a bit that is not known by its number."""
    return tuple(NAMES.get(1 << place, f"reason {1 << place:#x}") for place in range(bits.bit_length()) if bits >> place & 1)
