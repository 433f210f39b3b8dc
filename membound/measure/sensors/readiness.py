"""Whether HBM bytes could be counted here, without starting to: counting holds the GPU's clocks."""

from __future__ import annotations

import importlib.util
import os
import re
from typing import Final

from membound.measure.sensors.files import Files

# The driver's own settings (gpuopenanalytics/pynvml#19): RmProfilingAdminOnly: 1 lets administrators alone read counters.
_PARAMETERS: Final = "/proc/driver/nvidia/params"
_RESTRICTED: Final = re.compile(r"^RmProfilingAdminOnly:\s*1\s*$", re.MULTILINE)
_LIFT: Final = "load the driver with NVreg_RestrictProfilingToAdminUsers=0 (/etc/modprobe.d), or run as root"
PACKAGE_CURE: Final = "pip install 'membound[counters]'"
# What cupti-python imports and names among its requirements (its own metadata, 13.4), by module: a copy made by hand may lack some.
_MODULES: Final = {"cupti": "cupti-python", "elftools": "pyelftools", "cuda.bindings": "cuda-bindings"}


def counting(files: Files) -> tuple[str, str]:
    """What stands in the way of counting HBM bytes, and its cure; both empty where nothing is seen to."""
    why = not_installed()
    if why:
        return why, PACKAGE_CURE
    try:
        parameters = files.text(_PARAMETERS)
    except OSError:
        return "the driver does not tell its settings", ""
    if _RESTRICTED.search(parameters) and os.geteuid() != 0:
        return "the driver lets administrators alone read performance counters", _LIFT
    return "", ""


def not_installed() -> str:
    """Which packages are missing for counting; empty where none is."""
    missing = [package for module, package in _MODULES.items() if not _found(module)]
    if not missing:
        return ""
    return "CUPTI is not installed" if "cupti-python" in missing else f"CUPTI's Python package lacks what it needs: {', '.join(missing)}"


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
