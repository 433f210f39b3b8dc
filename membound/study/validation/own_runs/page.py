"""Our own measured runs beside prediction, as one page of Markdown: misses first."""

from __future__ import annotations

from typing import Final

from membound import __version__, units
from membound.cost import cudnn_graphs
from membound.study.markdown import table
from membound.study.validation.own_runs import asked
from membound.study.validation.own_runs.comparison import BUSY, QUANTITIES, TRAFFIC, OwnRun, errors

_UNITS: Final = {"step.time": "s", "hbm.utilisation.mean": "1", "gpu.power.mean": "W", "gpu.energy.step": "J", "gpu.busy": "1"}
_SHORT: Final = {
    "step.time": "step", "gpu.memory.allocated.peak": "allocated", "gpu.memory.reserved.peak": "reserved", "gpu.memory.used.peak": "used",
    TRAFFIC: "HBM bytes", "hbm.utilisation.mean": "HBM use", "gpu.power.mean": "power", "gpu.energy.step": "energy", "gpu.busy": "GPU busy",
}  # fmt: skip


def page(runs: list[OwnRun]) -> str:
    """The whole page: what was asked and what is reached for each GPU, then its runs one by one."""
    compared = sorted((run for run in runs if run.pairs), key=lambda run: -abs((run.ratio("step.time") or 1.0) - 1))
    left_out = [run for run in runs if not run.pairs]
    by_gpu = {gpu: [run for run in compared if run.gpu == gpu] for gpu in dict.fromkeys(run.gpu for run in runs) if gpu}
    by_gpu = {gpu: chosen for gpu, chosen in by_gpu.items() if chosen} or {"": compared}
    parts = [_head(compared, left_out), *(_reached(gpu, chosen) for gpu, chosen in by_gpu.items())]
    parts += [text for gpu, chosen in by_gpu.items() if (text := _twice(gpu, chosen))]
    parts += [f"## Every run on {gpu or 'the GPU'}, misses of the step's time first\n\n{_rows(chosen)}" for gpu, chosen in by_gpu.items()]
    if left_out:
        parts.append("## Not compared\n\n" + "\n".join(f"- `{run.name}`: {run.why}" for run in left_out))
    return "\n\n".join(parts) + "\n"


def _head(compared: list[OwnRun], left_out: list[OwnRun]) -> str:
    versions = sorted({", ".join(f"{name} {version}" for name, version in sorted(run.versions.items())) for run in compared})
    gpus = sorted({run.gpu for run in compared})
    return f"""# Validation: our own measured runs

Made by `membound study validation --only measured` with membound {__version__}; do not edit. {len(compared)} jobs were run for real on
{", ".join(gpus)} by `validation/measure_jobs.py` or, those named `study-`, by the study with `--measure`, and are predicted
here; {len(left_out)} more gave nothing to compare. Nothing is fitted to them: each GPU's rates are those of its kernels measured alone, and
its host's speed is that of tiny models: measured just before and just after the job, where that was done, else what is typical of that kind of
machine (`host.json` beside the runs).
What kernels read from HBM more than once rests on counted bytes of single kernels, of eight of these jobs with four layers each, on an H200
([laws/matmul.md](laws/matmul.md#what-it-reads-again)); no H100 was counted.
Software there: {"; ".join(versions)}.

A run whose GPU was busy {BUSY:.0%} of the time or more counts as bound by its GPU. The others waited for their host, whose launches differ from
host to host and from minute to minute by a factor of two ([time.md](time.md)); they are shown, and counted, all the same. Where rows differ in
length, cuDNN builds an execution graph for each length that it meets for the first time. Runs of varying lengths warm up for a round of their rows
or for some hundreds of steps; of one that did not, and met new lengths in most of its steps, {1e3 * cudnn_graphs.STEP:.0f} ms a micro-step, measured
alone, are added to the predicted step, in which the GPU does nothing: to its time and energy, and so to the means of power, HBM use and busy.
Memory is planned for a row at the cap; of a run that was fed none so long, it is compared at the longest that it was fed.

HBM bytes are those of one GPU in a step, read and written together: measured, the share of the peak bandwidth that NVML's GPM tells, times that
peak, times the mean time of the same marked steps, or, where they were counted, what the GPU's own counters say. Unlike HBM use, which is a rate,
they do not hang on how long the GPU waited. Energy is that of the board in a step, from its own counter, waiting included."""


def _reached(gpu: str, compared: list[OwnRun]) -> str:
    return f"## {gpu or 'The GPU'}: {len(compared)} runs\n\n{_asked(compared)}\n\n{_agreement(compared)}"


def _groups(compared: list[OwnRun]) -> dict[str, list[OwnRun]]:
    return {
        "all": compared,
        "rows of one length": [run for run in compared if not run.varies],
        "bound by the GPU": [run for run in compared if run.bound_by_gpu],
    }


def _asked(compared: list[OwnRun]) -> str:
    """What these runs were to show, met or missed, over all of them and over some."""
    lines = []
    for each in asked.ASKED:
        cells = [asked.verdict(each, chosen) for chosen in _groups(compared).values()]
        lines.append((each.says, *cells))
    lines.append((f"GPM within {asked.GPM_LIMIT:.0%} of the counters", *[asked.gpm(chosen) for chosen in _groups(compared).values()]))
    text = "### What was asked, and what is reached\n\n" + table(("asked", *_groups(compared)), lines)
    missing = asked.not_there(compared)
    return text + (f"\n\nA dash: not measured. Asked for and not among these runs: {', '.join(missing)}." if missing else "")


def _agreement(compared: list[OwnRun]) -> str:
    lines = []
    for title, chosen in _groups(compared).items():
        for quantity in QUANTITIES:
            found = errors(chosen, quantity)
            if found is not None:
                inside = f"{found.inside} of {found.count}"
                lines.append((title, _SHORT[quantity], str(found.count), f"{found.mean:.1%}", f"{found.median:.1%}", f"{found.worst:+.1%}", inside))
    return "### Agreement\n\n" + table(("runs", "quantity", "count", "mean error", "median", "worst", "inside the band"), lines)


def _twice(gpu: str, compared: list[OwnRun]) -> str:
    """How far the same Job is from itself on another machine of the same kind: nearer than that no prediction of one number comes."""
    lines, apart = [], []
    for run in sorted((run for run in compared if run.before), key=lambda run: run.name):
        measured, predicted, _, _ = run.pairs["step.time"]
        times = (*run.before, measured)
        apart.append(max(times) / min(times) - 1)
        busy = "yes" if run.bound_by_gpu else "no"
        lines.append((run.name, busy, ", ".join(units.show(each, "s") for each in times), f"{apart[-1]:.1%}", units.show(predicted, "s")))
    if not lines:
        return ""
    return (
        f"## Jobs that were measured more than once on {gpu or 'the GPU'}\n\n"
        "On machines of the same kind, with the same software. The last one is what is compared above and below. "
        f"In the mean the slowest takes {sum(apart) / len(apart):.1%} longer than the quickest.\n\n"
        + table(("job", "bound by the GPU", "step, one after the other", "apart", "predicted"), lines)
    )


def _rows(compared: list[OwnRun]) -> str:
    lines = []
    for run in compared:
        cells = [run.name]
        for quantity in QUANTITIES:
            if quantity not in run.pairs:
                cells.append("")
                continue
            measured, predicted, _, _ = run.pairs[quantity]
            unit = _UNITS.get(quantity, "B")
            ratio = run.ratio(quantity)
            cells.append(f"{units.show(measured, unit)} / {units.show(predicted, unit)}" + (f" = {ratio:.3f}" if ratio is not None else ""))
        lines.append(tuple(cells))
    head = ("job", *(_SHORT[quantity] for quantity in QUANTITIES))
    return "Measured / predicted = ratio of predicted to measured.\n\n" + table(head, lines)
