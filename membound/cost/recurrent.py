"""cuDNN's LSTM and GRU: a chain of small products, each waiting for the last and reading the recurrent weights from the L2 again."""

from __future__ import annotations

from typing import Final, final

import numpy as np

from membound.cost.calibrated import Calibrated
from membound.cost.dtypes import convolution_peak, element_size
from membound.cost.law import Array, Kernels, Priced, Shape, soft_roofline
from membound.cost.profile import Profile
from membound.cost.streaming import core_clock
from membound.spec.machine import Gpu

# The parts follow each other: what HBM adds is hidden behind them or bounds the whole.
_SHARPNESS: Final = 5.0
# An LSTM has four gates, each with a recurrent weight of hidden x hidden (Hochreiter and Schmidhuber 1997; cuDNN developer guide, CUDNN_LSTM).
_GATES: Final = 4
# B/s at which one step's kernel takes the recurrent weights from the L2, on an H100: steps of 32 rows take 12.0 us with 1,024 hidden cells and
# those of 64 rows 6.2 us with 512, of which 2.1 and 1.1 us are arithmetic and 3 us the start (validation/kernels/h100-sxm.csv).
_WEIGHTS: Final = 2.45e12


@final
class Recurrent(Calibrated):
    """Fused recurrent layers, forward and backward."""

    family = "recurrent"
    efficiency_of = "compute"

    def knows(self, op: str) -> bool:
        return op.startswith(("aten._cudnn_rnn", "aten._thnn_fused_lstm_cell", "aten._thnn_fused_gru_cell"))

    def rates(self, kernels: Kernels) -> list[str]:
        return [self.family] * len(kernels)

    def priced(self, kernels: Kernels, gpu: Gpu, profile: Profile) -> Priced:
        rate = profile.rate(self.family)
        backward = np.array(["backward" in op for op in kernels.op])
        peak = np.array([convolution_peak(gpu, reads[0][0]) if reads else gpu.peaks.fp32 for reads in kernels.reads])
        steps, weight = _chain(kernels)
        products = kernels.flops / (peak * rate.efficiency * gpu.clock.max / gpu.clock.boost)
        # Backward goes through the weights once for the state's gradient and once for the inputs', in three kernels a step.
        taken = np.where(backward, 2, 1) * steps * weight / (_WEIGHTS * core_clock(gpu, profile))
        memory = kernels.hbm / (gpu.hbm.bandwidth * profile.rate("pointwise").efficiency)
        return soft_roofline(products + taken, memory, np.where(backward, 3, 1) * steps * rate.fixed, _SHARPNESS, rate.band)


def _chain(kernels: Kernels) -> tuple[Array, Array]:
    """Steps of each kernel's chain, layers and directions one after the other, and bytes of one layer's recurrent weights; [n] each."""
    found = [_layer(reads) for reads in kernels.reads]
    return np.array([steps for steps, _ in found], np.float64), np.array([weight for _, weight in found], np.float64)


def _layer(reads: tuple[Shape, ...]) -> tuple[float, float]:
    """From the input, [T, B, C] or [B, T, C], and the hidden state, [layers and directions, B, H], the second operand of three sizes."""
    deep = [(dtype, dims) for dtype, dims in reads if len(dims) == 3]
    if len(deep) < 2:
        return 1.0, 0.0
    (dtype, dims), (_, (layers, rows, hidden)) = deep[:2]
    return layers * dims[0] * dims[1] / max(rows, 1), float(_GATES * hidden**2 * element_size(dtype))
