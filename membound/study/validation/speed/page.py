"""The study of published speeds as one page of Markdown: misses first."""

from __future__ import annotations

import statistics as plain
from typing import Final

from membound import __version__, units
from membound.study.markdown import table
from membound.study.validation import sections
from membound.study.validation.speed import statistics
from membound.study.validation.speed.comparison import SpeedCompared
from membound.study.validation.speed.outcome import EXAM, GROUPS, STEP
from membound.study.validation.speed.result import SpeedResult
from membound.study.validation.speed.statistics import GroupErrors, SpeedErrors


def page(result: SpeedResult) -> str:
    """The whole page."""
    parts = (_head, _agreement, _misses, _failures, _floor, sections.left_out, _readings, _rows)
    return "\n\n".join(text for part in parts if (text := part(result))) + "\n"


def _head(result: SpeedResult) -> str:
    software = ", ".join(f"{name} {version}" for name, version in sorted(result.versions.items())) or "no prediction"
    return f"""# Validation: speed

Made by `membound study validation --only speed` with membound {__version__}; do not edit. Predictions come from the code of {software}.

{len(result.done)} published readings of speed ship with membound, each with its source. {len(result.compared)} are compared with a
prediction, {len(result.failed)} failed, {len(result.left_out)} are left out for the reasons below. Nothing is fitted to any of them: the laws
are calibrated on kernels, links and data sheets. Ratios are of predicted to published *speed*: above 1 the prediction is too fast.
The groups {" and ".join(f"*{name}*" for name in EXAM)} ran the software that a Job asks for; all others ran other software, as said below.

The trivial predictor knows the GPU and nothing else: the median of the model FLOP/s that the other sources reached on it, by the Job's
FLOP. It is judged on the same rows; a GPU that one source alone measured has none."""


_AGREEMENT: Final = ("group", "method", "GPU", "rows", "mean", "90 %", "bias", "worst", "in band", "trivial mean", "90 %", "bias", "met")


def _agreement(result: SpeedResult) -> str:
    groups = statistics.by_group(result.done)
    if not groups:
        return ""
    lines = [(*key, *_errors(each)) for key, each in sorted(groups.items(), key=lambda item: item[1].met)]
    overall = statistics.overall(result.done)
    if overall is not None:
        lines.append(("**all**", "", "", *_errors(overall)))
    limits = f"mean error {statistics.MEAN_LIMIT:.0%}, {statistics.TAIL_LIMIT:.0%} at the 90th percentile, bias under {statistics.BIAS_LIMIT:.0%}"
    words = "\n".join(f"- **{name}**: {text}" for name, text in GROUPS.items() if any(key[0] == name for key in groups))
    head = f"Limits: {limits}, and nearer than the trivial predictor; groups that miss them first."
    return f"## Agreement by group\n\n{head}\n\n{table(_AGREEMENT, lines)}\n\n{words}"


def _errors(each: GroupErrors) -> tuple[str, ...]:
    ours, other = each.ours, each.trivial
    cells = (str(ours.count), *_three(ours), f"{ours.worst:+.1%}", f"{each.inside:.0%}")
    return (*cells, *(_three(other) if other is not None else ("", "", "")), "yes" if each.met else "**no**")


def _three(each: SpeedErrors) -> tuple[str, str, str]:
    return f"{each.mean:.1%}", f"{each.tail:.1%}", f"{each.bias:+.1%}"


def _misses(result: SpeedResult) -> str:
    misses = result.misses()
    words = f"Rows more than {statistics.TAIL_LIMIT:.0%} off, the furthest first: {len(misses)} of {len(result.compared)}."
    return f"## Misses\n\n{words}" + (f"\n\n{table(_LINE, map(_line, misses))}" if misses else "")


def _failures(result: SpeedResult) -> str:
    lines = [(error, str(len(rows)), ", ".join(rows[:6]) + (", ..." if len(rows) > 6 else "")) for error, rows in result.failures()]
    return f"## Failed: {len(result.failed)} rows\n\n{table(('error', 'rows', 'which'), lines)}" if lines else ""


def _floor(result: SpeedResult) -> str:
    if not result.repeats:
        return ""
    differences = [each.difference for each in result.repeats]
    words = (
        f"Two readings of one recipe on one GPU, published by others, differ by {plain.median(differences):.1%} in the median and by up to "
        f"{max(differences):.1%} ({len(differences)} pairs): no prediction can be nearer to both than half of that."
    )
    lines = [
        (each.first.id, each.second.id, sections.title(each.first), f"{each.first.value:g}", f"{each.second.value:g}", f"{each.difference:.1%}")
        for each in sorted(result.repeats, key=lambda each: each.difference, reverse=True)
    ]
    return f"## The floor\n\n{words}\n\n{table(('row', 'row', 'what', 'first', 'second', 'difference'), lines)}"


def _readings(result: SpeedResult) -> str:
    return sections.readings(each.case for each in result.compared)


def _rows(result: SpeedResult) -> str:
    parts = ["## Every compared row, the furthest first"]
    for group in GROUPS:
        members = [each for each in result.compared if each.case.group == group]
        lines = map(_line, sorted(members, key=lambda each: abs(each.ratio - 1), reverse=True))
        parts += [f"### {group}", table(_LINE, lines)] if members else []
    return "\n\n".join(parts) if len(parts) > 1 else ""


_LINE: Final = ("row", "what", "GPU", "published", "predicted", "ratio", "in band", "rounding")


def _line(each: SpeedCompared) -> tuple[str, ...]:
    case = each.case
    rounding = f"±{case.rounding:.1%}" if case.rounding > 0.005 else ""
    cells = case.row.id, sections.title(case.row), each.gpu, _shown(case.published, case.quantity), _shown(each.value, case.quantity)
    return (*cells, f"{each.ratio:.3f}", "yes" if each.inside else "no", rounding)


def _shown(value: float, quantity: str) -> str:
    return units.show(value, "s") if quantity == STEP else f"{value:,.0f} token/s"
