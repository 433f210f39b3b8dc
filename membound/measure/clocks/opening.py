"""Open a driver by its address, as a journal or the command line names it: `nvml`, or `simulated:FOLDER`."""

from __future__ import annotations

from pathlib import Path

from membound.errors import InputError
from membound.measure.clocks import nvml, simulated
from membound.measure.clocks.consent import Settable


def open_driver(address: str) -> Settable:
    """The driver at `address`. Raises `InputError` for an address that is none, and what the driver itself raises."""
    if address == nvml.ADDRESS:
        return nvml.NvmlDriver()
    if address.startswith(simulated.SCHEME):
        folder = Path(address.removeprefix(simulated.SCHEME))
        if not (folder / "board.json").is_file():
            raise InputError("driver", address, "no simulated machine is there")
        return simulated.SimulatedDriver(folder)
    raise InputError("driver", address, "write nvml or simulated:FOLDER")
