"""All laws of kernels, in the order in which they are asked; the last one knows everything."""

from __future__ import annotations

import functools
from typing import Final

from membound.cost.attention_backward import AttentionBackward
from membound.cost.attention_forward import AttentionForward
from membound.cost.batched_matmul import BatchedMatmul
from membound.cost.convolution import Convolution
from membound.cost.copying import Copying
from membound.cost.detection import Detection
from membound.cost.embedding import Embedding
from membound.cost.law import Law
from membound.cost.matmul import Matmul
from membound.cost.optimizer import Optimizer
from membound.cost.pointwise import Pointwise
from membound.cost.quantisation import Quantisation
from membound.cost.quantised_matmul import QuantisedMatmul
from membound.cost.recurrent import Recurrent
from membound.cost.reduction import Reduction
from membound.cost.softmax import Softmax
from membound.cost.unknown import Unknown

LAWS: Final[tuple[Law, ...]] = (
    QuantisedMatmul(), Matmul(), BatchedMatmul(), AttentionForward(), AttentionBackward(), Convolution(), Recurrent(), Detection(), Quantisation(),
    Optimizer(), Softmax(), Embedding(), Reduction(), Copying(), Pointwise(), Unknown(),
)  # fmt: skip


@functools.cache
def law_of(op: str) -> int:
    """Index into `LAWS` of the law that prices the operator of that name."""
    return next(number for number, law in enumerate(LAWS) if law.knows(op))
