"""Sets the clocks of a simulated board, faults included."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from membound.measure.clocks import simulated_board as board
from membound.measure.clocks.calls import Answer, Call
from membound.measure.clocks.consent import Controls
from membound.measure.clocks.refusals import GpuLostError

# NVML_ERROR_NO_PERMISSION and its words, NVML_ERROR_NOT_SUPPORTED: pynvml.py of nvidia-ml-py 13.615.71.
_DENIED: Final = Answer(4, "Insufficient Permissions")
_NOT_SUPPORTED: Final = Answer(3, "Not Supported")
_MEGA: Final = 1_000_000


class SimulatedControls(Controls):
    """Sets clocks of the boards in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def perform(self, call: Call) -> Answer:
        board.note(self._folder, call.document())
        state = board.read(self._folder)
        faults = state["faults"]
        if faults["lost"]:
            raise GpuLostError(call.uuid)
        if faults["no_permission"]:
            return _DENIED
        if faults["says_not_supported"]:
            return Answer(0, "This option is not supported. All done.")
        if call.name in {"lock_memory", "reset_memory"} and state["gpus"][call.uuid]["switch_type"] in {0, 1}:
            return _NOT_SUPPORTED
        if not faults["deaf"] and not (faults["deaf_to_reset"] and call.name.startswith("reset")):
            board.change(self._folder, lambda state: state["gpus"][call.uuid].update(_effect(call)))
        return Answer(0)


def _effect(call: Call) -> dict[str, Any]:
    """What `call` changes of a board's state."""
    clocks = [clock // _MEGA for clock in call.clocks]
    match call.name:
        case "lock_memory":
            return {"locked_memory_mhz": clocks[0]}
        case "reset_memory":
            return {"locked_memory_mhz": None}
        case "lock_core":
            return {"locked_core_mhz": clocks[0]}
        case "reset_core":
            return {"locked_core_mhz": None}
        case "set_applications":
            return {"applications_mhz": clocks}
        case "reset_applications":
            return {"applications_mhz": None}
