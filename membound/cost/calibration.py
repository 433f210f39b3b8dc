"""The measured kernels that ship with membound, read once in a process; where they come from: cost/data/SOURCES.md."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost.law import Array
from membound.spec.machine import Architecture, Gpu

FOLDER: Final = Path(__file__).with_name("data")
# Times are kept as round(RESOLUTION x ln(seconds)) in 16 bits: steps of 0.05 %, well below what two measurements of a kernel agree to.
RESOLUTION: Final = 2000.0
_HOLE: Final = np.iinfo(np.int16).min

# Whose measured kernels stand for a GPU that was not measured: the same tensor cores, or the nearest of their generation.
_STANDS_FOR: Final[dict[Architecture, str]] = {
    "pascal": "a100",
    "volta": "a100",
    "turing": "a100",
    "ampere": "a100",
    "ada": "l40s",
    "hopper": "h100",
    "blackwell": "b200",
    "cdna3": "h100",
}
# Catalogue names of the GPUs that were measured, and of those that are the same part in another package.
_MEASURED: Final = {"a100-sxm-80gb": "a100", "h100-sxm": "h100", "h200": "h200", "gh200": "h200", "b200": "b200", "l40s": "l40s"}


@dataclass(frozen=True)
class Basis:
    """Whose measurements a prediction rests on."""

    gpu: str
    own: bool
    """Whether it is the GPU itself rather than a neighbour."""


def basis(gpu: Gpu) -> Basis:
    """The measured GPU that stands for `gpu`: by name, else by architecture; never by a value, so that a sweep keeps to one."""
    own = _MEASURED.get(gpu.name)
    return Basis(own or _STANDS_FOR[gpu.architecture], own is not None and own == gpu.name.split("-")[0])


def encode(seconds: Array) -> npt.NDArray[np.int16]:
    """Times as they are kept; NaN stands for a hole."""
    with np.errstate(invalid="ignore"):
        kept = np.round(RESOLUTION * np.log(seconds))
    return np.where(np.isnan(kept), _HOLE, kept).astype(np.int16)


def decode(kept: npt.NDArray[np.int16]) -> Array:
    """Times in s, NaN for holes."""
    return np.where(kept == _HOLE, np.nan, np.exp(kept / RESOLUTION))


@cache
def archive(name: str) -> dict[str, npt.NDArray[np.generic]]:
    """All arrays of the data file `name`."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}
