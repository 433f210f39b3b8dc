"""cuDNN's LSTM and GRU: one product for the inputs of all steps, then a chain of small ones, each waiting for the last."""

from __future__ import annotations

from typing import Final, final

import numpy as np

from membound.cost import dtypes
from membound.cost.law import Kernels, Law, Priced, soft_roofline
from membound.cost.profile import profile_of
from membound.spec.machine import Gpu

# As of matrix products (membound.cost.matmul).
_SHARPNESS: Final = 5.0


@final
class Recurrent(Law):
    """Fused recurrent layers, forward and backward."""

    family = "recurrent"

    def knows(self, op: str) -> bool:
        return op.startswith(("aten._cudnn_rnn", "aten._thnn_fused_lstm_cell", "aten._thnn_fused_gru_cell"))

    def price(self, kernels: Kernels, gpu: Gpu) -> Priced:
        rate = profile_of(gpu).rate(self.family)
        peak = np.array([dtypes.peak(gpu, reads[0][0]) if reads else gpu.peaks.fp32 for reads in kernels.reads])
        compute = kernels.flops / (peak * rate.efficiency * gpu.clock.max / gpu.clock.boost)
        memory = kernels.hbm / (gpu.hbm.bandwidth * profile_of(gpu).rate("pointwise").efficiency)
        steps = np.array([_steps(reads) for reads in kernels.reads], np.float64)
        return soft_roofline(compute, memory, steps * rate.fixed, _SHARPNESS, rate.band)


def _steps(reads: tuple[tuple[str, tuple[int, ...]], ...]) -> int:
    """Time steps: the first size of the input [T, B, C], which is the first operand of three sizes."""
    return next((dims[0] for _, dims in reads if len(dims) == 3), 1)
