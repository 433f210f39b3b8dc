"""Measure the kernels of fine-tuning on the GPU of this machine, some four minutes; needs PyTorch alone.

    python validation/measure_kernels.py OUT.csv [--only FAMILY,...] [--seconds 240] [--again]     on a CUDA machine
    python validation/measure_kernels.py OUT.csv --dry                                             on the processor, tiny, to see that it runs

The families that `membound calibrate` measures (membound/measure/calibrate/worker.py), and more: model code on the host, attention at lengths that
were not met before, power; and, only if asked for by name, the memory-efficient attention's other kinds, kernels that pay by the row, and kernels
that Liger and Inductor fuse.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Of the checkout, installed or not, and the families beside this script.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from kernel_families import attention_kinds, by_row, fused, lengths, models, power

from membound.measure.calibrate import worker
from membound.measure.calibrate.bench import timed

FAMILIES = {**worker.FAMILIES, "models": models.rows, "lengths": lengths.rows, "power": power.rows}
ASKED = {
    "attention-kinds": lambda bench: timed(bench, attention_kinds.cases(bench)),
    "by-row": lambda bench: timed(bench, by_row.cases(bench)),
    "fused": lambda bench: timed(bench, fused.cases(bench)),
}

if __name__ == "__main__":
    by_name = any(family in argument for argument in sys.argv for family in ASKED)
    worker.main(families={**FAMILIES, **ASKED} if by_name else FAMILIES)
