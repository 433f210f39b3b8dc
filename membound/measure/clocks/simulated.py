"""A simulated driver over a recorded board: to try a measured sweep anywhere, and to test one where it goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from membound.measure.clocks import simulated_board as board
from membound.measure.clocks.consent import Controls, Settable
from membound.measure.clocks.driver import Gpu, Reading, Switching, SwitchType
from membound.measure.clocks.reasons import IDLE
from membound.measure.clocks.refusals import GpuLostError, NotSwitchableError

SCHEME: Final = "simulated:"
_MEGA: Final = 1_000_000


class SimulatedDriver(Settable):
    """The driver of the simulated machine in `folder` (`simulated_board.create`)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    @property
    def address(self) -> str:
        return f"{SCHEME}{self._folder}"

    def gpus(self) -> tuple[Gpu, ...]:
        return tuple(Gpu(uuid, gpu["name"]) for uuid, gpu in board.read(self._folder)["gpus"].items())

    def switching(self, uuid: str) -> Switching:
        gpu = self._gpu(uuid)
        if gpu["switch_type"] is None:
            return Switching(SwitchType.UNKNOWN, gpu["interval_ms"] / 1e3, "field 298: Not Supported")
        return Switching(SwitchType(gpu["switch_type"]), gpu["interval_ms"] / 1e3)

    def memory_clocks(self, uuid: str) -> tuple[int, ...]:
        return tuple(clock * _MEGA for clock in self._gpu(uuid)["memory_mhz"])

    def core_clocks(self, uuid: str, memory: int) -> tuple[int, ...]:
        core = self._gpu(uuid)["core_mhz"]
        if memory not in self.memory_clocks(uuid):
            return ()
        return tuple(clock * _MEGA for clock in range(core["highest"], core["lowest"] - 1, -core["step"]))

    def applications(self, uuid: str) -> tuple[int, int] | None:
        gpu = self._gpu(uuid)
        memory, core = gpu["applications_mhz"] or (gpu["default_memory_mhz"], gpu["default_core_mhz"])
        return memory * _MEGA, core * _MEGA

    def processes(self, uuid: str) -> tuple[int, ...]:
        return tuple(self._gpu(uuid)["pids"])

    def read(self, uuid: str) -> Reading:
        state = board.read(self._folder)
        gpu, faults = self._gpu(uuid), state["faults"]
        memory, core = gpu["default_memory_mhz"], gpu["default_core_mhz"]
        if gpu["applications_mhz"] and gpu["applications_obeyed"]:
            memory, core = gpu["applications_mhz"]
        if gpu["locked_memory_mhz"]:
            memory = gpu["locked_memory_mhz"] + faults["offset_mhz"]
        reasons = faults["reasons_under_load"] if gpu["loaded"] else IDLE
        return Reading(memory * _MEGA, (gpu["locked_core_mhz"] or core) * _MEGA, reasons)

    def _controls(self) -> Controls:
        from membound.measure.clocks.simulated_controls import SimulatedControls

        return SimulatedControls(self._folder)

    def _gpu(self, uuid: str) -> dict[str, Any]:
        state = board.read(self._folder)
        if uuid not in state["gpus"]:
            raise NotSwitchableError(f"{uuid}: no such GPU here (there are {', '.join(state['gpus'])})")
        if state["faults"]["lost"]:
            raise GpuLostError(uuid)
        gpu: dict[str, Any] = state["gpus"][uuid]
        return gpu
