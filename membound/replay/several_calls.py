"""Operators that are several launches behind one call: how many calls' time they take of the host."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from membound.replay.program import Program

Floats = npt.NDArray[np.float64]

# Calls' time by operator, where an addition takes one (validation/kernels/h200-host-steps*.csv, by validation/compare_host_steps.py): thrust's and
# CUB's sorts and scans, a library's plan looked up, workspaces.
_CALLS: Final = {
    "aten.index_put": 12.8,
    "aten.index_put_": 12.8,
    "aten._index_put_impl_": 12.8,
    "aten.sort": 4.3,
    "aten.topk": 1.9,
    "aten.cumsum": 1.8,
    "aten.convolution": 3.0,
    "aten.convolution_backward": 4.0,
    "aten.cudnn_batch_norm": 2.5,
}
# More for more rows than so many: from there on embedding's gradient sorts them (Embedding.cu), topk takes several blocks a row (TensorTopK.cu), and
# a sort several passes.
_LARGE: Final = {"aten.embedding_dense_backward": (3072, 17.3), "aten.topk": (20_000, 11.3), "aten.sort": (65_536, 7.5)}
# Of our own vision operators (membound/programs/vision_operators.py): calls, and calls for each level of the pyramid, of which they get a map each;
# within torchvision's nms a sort, a selection, two kernels, a fill and the kept ones (csrc/ops/cuda/nms_kernel.cu; the two kernels as
# validation/h200/profiles/mask-rcnn-4.profile.parquet has them).
_WITHIN: Final = {"membound.nms": (8, 0), "membound.roi_align": (1, 8), "membound.roi_align_backward": (0, 9)}
# What they get beside the maps: regions and their levels, and in backward the gradient.
_BESIDE: Final = {"membound.roi_align": 2, "membound.roi_align_backward": 3}


def calls(program: Program) -> Floats:
    """Calls' time that each item takes beyond its own, [items]."""
    found = np.zeros(len(program))
    for code, name in enumerate(_names(program)):
        if name not in _CALLS and name not in _LARGE and name not in _WITHIN:
            continue
        at = np.flatnonzero(program.op == code)
        if name in _WITHIN:
            call, level = _WITHIN[name]
            read = np.bincount(program.operands.item[program.operands.write == 0], minlength=len(program))[at]
            found[at] = call + level * np.maximum(read - _BESIDE.get(name, 0), 0) - 1
            continue
        found[at] = _CALLS.get(name, 1.0) - 1
        if name in _LARGE:
            rows, many = _LARGE[name]
            found[at] = np.where(_rows(program, name)[at] > rows, many - 1, found[at])
    return found


def _names(program: Program) -> list[str]:
    return [name.rpartition(".")[0] for name in program.trace.header.ops]


def _rows(program: Program, name: str) -> npt.NDArray[np.int64]:
    """How many an operator sorts, as many as are in the smallest tensor that it reads: of 8 B each where they are indices, of 4 B where numbers."""
    operands = program.operands
    read = operands.write == 0
    smallest = np.full(len(program), np.iinfo(np.int64).max)
    np.minimum.at(smallest, operands.item[read], operands.nbytes[0][read])
    return smallest // (8 if name == "aten.embedding_dense_backward" else 4)
