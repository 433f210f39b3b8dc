"""Measure the kernels of fine-tuning on the GPU of this machine, some four minutes; needs PyTorch alone.

    python validation/measure_kernels.py OUT.csv [--only FAMILY,...] [--seconds 240] [--again]     on a CUDA machine
    python validation/measure_kernels.py OUT.csv --dry                                             on the processor, tiny, to see that it runs

The families that `membound calibrate` measures (membound/measure/calibrate/worker.py), and three more: model code on the host, attention at lengths
that were not met before, and power.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Of the checkout, installed or not, and the families beside this script.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from kernel_families import lengths, models, power

from membound.measure.calibrate import worker

FAMILIES = {**worker.FAMILIES, "models": models.rows, "lengths": lengths.rows, "power": power.rows}

if __name__ == "__main__":
    worker.main(families=FAMILIES)
