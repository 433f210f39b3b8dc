"""How long it takes to price a captured step of Llama-7B on a machine, part by part: run it, read the lines. Captures are made first, and kept.

The aims: 50 ms for the same step on another machine that has the same L2, and a time that grows with operators in a straight line. Times are the
best of several in this one process; ratios between them say more than they do.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from membound.replay.pricing import priced
from membound.replay.time import Replayer
from membound.replay.timeline import Timeline, play
from membound.replay.workload import workload
from membound.spec import catalogue
from membound.spec.job import Job
from membound.study.predicting import Predictor

FIRST, OTHER = "hgx-h100", "hgx-h200"
TIMES = 5


def job(accumulation: int, data: dict[str, object]) -> Job:
    """The Alpaca recipe on eight GPUs; `accumulation` up to 3 makes the captured step longer, beyond that it repeats."""
    recipe = {"precision": "bf16-mixed", "engine": "deepspeed", "zero_stage": 1, "micro_batch": 4, "accumulation": accumulation}
    return Job.model_validate({"model": "llama-7b", "data": data, "recipe": recipe, "gpus": 8, "machine": FIRST})


def best(run: Callable[[], object]) -> float:
    """Least seconds of several calls."""
    found = []
    for _ in range(TIMES):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def show(name: str, seconds: float, whole: float) -> None:
    print(f"{name:44} {seconds * 1e3:8.1f} ms {seconds / whole:7.2f}")


def parts(replayer: Replayer) -> None:
    """Every part of a prediction at several row lengths, over that of re-pricing."""
    machine, other = catalogue.machine(FIRST), catalogue.machine(OTHER)
    program, work = replayer.program, replayer.workload(machine.gpu)
    prices = priced(work, machine, 8)
    again = best(lambda: replayer.on(other).step)
    print(f"{len(program)} items, {work.distinct} distinct kernels, {len(work.lengths)} row lengths")
    print(f"{'part':44} {'time':>11} {'ratio':>7}")
    show("compile the trace", best(lambda: Replayer(replayer.trace, replayer.lengths, replayer.other).program), again)
    show("through the L2, kernels sorted by law", best(lambda: workload(program, work.lengths, machine.gpu)), again)
    show("price", best(lambda: priced(work, machine, 8)), again)
    show("play over streams", best(lambda: _all_of(play(program, prices))), again)
    show(f"the step on another machine ({OTHER})", again, again)


def _all_of(line: Timeline) -> object:
    """What a play finds at once, and what it leaves to whoever asks."""
    return line.end, line.borders


def growth() -> None:
    """Time per item of longer and longer steps of one row length."""
    machine, sizes, seconds = catalogue.machine(FIRST), [], []
    print(f"\n{'captured micro-steps':>20} {'items':>8} {'price and play':>15} {'an item':>10}")
    for accumulation in (1, 2, 3):
        replayer = Predictor().replayer(job(accumulation, {"seq_len": 512}), 8)
        replayer.workload(machine.gpu)
        sizes.append(len(replayer.program))
        seconds.append(best(lambda replayer=replayer: replayer.on(machine).step))  # type: ignore[misc]
        print(f"{accumulation:20} {sizes[-1]:8} {seconds[-1] * 1e3:12.1f} ms {seconds[-1] / sizes[-1] * 1e6:7.2f} us")
    print(f"{sizes[-1] / sizes[0]:.2f} times the items take {seconds[-1] / seconds[0]:.2f} times as long")


def main() -> None:
    parts(Predictor().replayer(job(4, {"lengths": "alpaca", "max_length": 512}), 8))
    growth()


if __name__ == "__main__":
    main()
