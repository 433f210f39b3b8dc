"""How long a thousand-point hardware sweep of a kept Llama-7B capture takes, and what one machine costs by how many are replayed side by side.

    python benchmarks/sweep.py [PROCESSES]

The job is examples/alpaca-7b-zero1.yaml: seven row lengths, 14,000 launches a step. Its capture is kept first, and not counted. Wall time is that
of the command line's own work, processes started included; processor time is what all of them took. Compare within one run: machines differ.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

from membound.replay import side_by_side
from membound.spec import fields, jobfile
from membound.study.predicting import Predictor
from membound.study.sweep import grid, predicting

JOB = "examples/alpaca-7b-zero1.yaml"
# 10 x 10 x 10 points.
OVER = {
    "machine.gpu.hbm.clock": [f"{clock} MHz" for clock in range(1600, 4100, 250)],
    "machine.links.nvlink": [f"{rate} GB/s" for rate in range(150, 650, 50)],
    "machine.gpu.hbm.capacity": [f"{size} GiB" for size in range(48, 208, 16)],
}


def used() -> float:
    """Processor seconds of this process and of its ended children."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in both)


def main(processes: int | None) -> None:
    """Print the whole sweep's time, then a table of what a machine costs."""
    asked = jobfile.read(JOB)
    replayer = Predictor().replayer(asked.job, asked.machine.gpus)
    start, before = time.perf_counter(), used()
    found = predicting.sweep(grid.whole(asked.job, OVER), processes=processes)
    wall, cpu = time.perf_counter() - start, used() - before
    print(f"{len(found.points):,} points: {wall:.1f} s, {cpu:.1f} processor seconds, {cpu / len(found.points) * 1e3:.1f} ms each", flush=True)
    machines = [fields.with_values(asked.machine, {"gpu.hbm.clock": float(clock)}) for clock in np.linspace(1.6e9, 4e9, 64)]
    width = len(replayer.workload(asked.machine.gpu).lengths)
    for abreast in (1, 4, 8, 16, 32, 64):
        before = time.process_time()
        side_by_side.on_each(replayer, machines, abreast * width)
        mark = "  (as it is)" if abreast == side_by_side.COLUMNS // width else ""
        print(f"{abreast:3d} machines side by side: {(time.process_time() - before) / len(machines) * 1e3:5.1f} ms each{mark}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
