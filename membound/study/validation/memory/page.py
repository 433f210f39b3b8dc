"""The validation study as one page of Markdown: misses first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from membound import __version__, units
from membound.study.markdown import table
from membound.study.validation import sections
from membound.study.validation.memory import statistics
from membound.study.validation.memory.comparison import Compared
from membound.study.validation.memory.measured import PAIRS, Measured
from membound.study.validation.memory.outcome import GROUPS
from membound.study.validation.memory.result import Result, marks, own
from membound.study.validation.outcome import MATCHED

_MISSES: Final = 0.05


def page(result: Result) -> str:
    """The whole page."""
    parts = (_head, _exam, _misses, _agreement, _verdicts, _measured, _host, sections.left_out, _readings, _rows)
    return "\n\n".join(text for part in parts if (text := part(result))) + "\n"


def _head(result: Result) -> str:
    software = ", ".join(f"{name} {version}" for name, version in sorted(result.versions.items()))
    return f"""# Validation: memory

Made by `membound study validation` with membound {__version__}; do not edit. Predictions come from the code of {software}.

{len(result.done)} published readings of memory ship with membound, each with its source. {len(result.compared)} are compared with a
prediction, {len(result.failed)} failed, {len(result.left_out)} are left out for the reasons below. No setting was chosen by its result: each
follows what the source documents; where the source is silent, the choice is named. Rows of the group *matched* are the exam; all
others ran other software than ours, or state too little, and are reported apart.

Three decisions were made after a first comparison, each from source code that explains the miss and none by changing a prediction: SantaCoder
stands apart from *matched* as *older-model*; litgpt's FSDP rows (their peak is of loading) and its 4-bit Falcon rows are left out."""


def _exam(result: Result) -> str:
    rows = [(mark.criterion, mark.limit, mark.found, "yes" if mark.passed else "**no**") for mark in marks(result)]
    return "## The exam\n\n" + table(("criterion", "limit", "found", "met"), rows) if rows else ""


def _misses(result: Result) -> str:
    far = [each for each in result.compared if each.case.group == MATCHED and each.ratio is not None and abs(each.ratio - 1) > _MISSES]
    wrong = [each for each in result.compared if each.label is not None and each.fits != each.label]
    lines = ["## Misses", "Matched rows more than 5 % off, and rows of any group with the wrong verdict."]
    rows = [*((*_line(each), "value") for each in _by_error(far)), *((*_line(each), "verdict") for each in wrong)]
    failed = [f"- {each.case.row.id} failed: {each.error}" for each in result.failed]
    body = table((*_LINE, "miss"), rows) if rows else "None."
    return "\n\n".join([*lines, body, *(["\n".join(failed)] if failed else [])])


def _agreement(result: Result) -> str:
    rows = [
        (
            group,
            quantity,
            str(each.count),
            f"{each.median:.2%}",
            f"{each.bias:+.2%}",
            f"{each.worst:+.2%}",
            f"{each.within_2:.0%}",
            f"{each.within_5:.0%}",
        )
        for (group, quantity), each in statistics.by_group(result.done).items()
    ]
    head = ("group", "quantity", "rows", "median error", "median with sign", "worst", "within 2 %", "within 5 %")
    words = "\n".join(f"- **{name}**: {text}" for name, text in GROUPS.items() if any(row[0] == name for row in rows))
    return f"## Agreement by group\n\nErrors are of predicted over published, less 1.\n\n{table(head, rows)}\n\n{words}" if rows else ""


def _verdicts(result: Result) -> str:
    told = statistics.verdicts(result.done)
    if not told.runs:
        return ""
    text = f"Of {told.runs} runs that are known to have fitted or not, {told.right} were told right ({told.share:.1%}); "
    text += f"{len(told.false_fits)} were said to fit and ran out of memory, {len(told.false_misfits)} were said not to fit and ran."
    rows = [_line(each) for each in (*told.false_fits, *told.false_misfits)]
    return f"## Verdicts\n\n{text}" + (f"\n\n{table(_LINE, rows)}" if rows else "")


def _measured(result: Result) -> str:
    if not result.measured:
        return ""
    rows = [_measured_line(each) for each in sorted(result.measured, key=_measured_error, reverse=True)]
    told = ", ".join(f"{key} median {each.median:.2%}, worst {each.worst:+.2%}" for key, each in own(result.measured).items())
    torches = sorted({str(each.environment.get("torch")) for each in result.measured})
    words = f"Runs of `validation/measure_memory.py` on one H200, PyTorch {', '.join(torches)}: {told}."
    head = ("run", *(f"{key} measured, GiB" if kind == "m" else f"{key} ratio" for key in PAIRS for kind in "mr"))
    return f"## Our own measurements\n\n{words}\n\n{table(head, rows)}"


def _measured_line(each: Measured) -> tuple[str, ...]:
    if each.error is not None and not each.predicted:
        return (each.name, each.error[:80], *[""] * (2 * len(PAIRS) - 1))
    cells = [(f"{each.measured[key] / 2**30:.3f}" if key in each.measured else "", _ratio(each.ratio(key), 4)) for key in PAIRS]
    return (each.name, *(cell for pair in cells for cell in pair))


def _measured_error(each: Measured) -> float:
    ratio = each.ratio("allocated")
    return abs(ratio - 1) if ratio is not None else 1.0


def _host(result: Result) -> str:
    rows = [_line(each) for each in result.compared if each.case.group == "report" or each.on_host]
    words = "The report's Llama-65B under ZeRO-3 with CPU offload on 1.5 to 4 TB of host memory, Llama-7B alone on one GPU, QLoRA; and issue reports."
    return f"## Host memory, and the report\n\n{words}\n\n{table(_LINE, rows)}" if rows else ""


def _readings(result: Result) -> str:
    return sections.readings(each.case for each in result.compared)


def _rows(result: Result) -> str:
    parts = ["## Every compared row, the furthest first"]
    for group in GROUPS:
        rows = [_line(each) for each in _by_error(each for each in result.compared if each.case.group == group)]
        parts += [f"### {group}", table(_LINE, rows)] if rows else []
    return "\n\n".join(parts) if len(parts) > 1 else ""


_LINE: Final = ("row", "what", "quantity", "published", "predicted", "ratio", "fits: published, predicted", "spare")


def _line(each: Compared) -> tuple[str, ...]:
    told = {True: "yes", False: "no", None: ""}
    published = units.show(each.case.published, "B", 4) if each.case.published is not None else "verdict"
    fits = f"{told[each.label]}, {told[each.fits]}" if each.label is not None else ""
    quantity = each.case.quantity.removesuffix(".peak").replace(".memory", "")
    cells = each.case.row.id, sections.title(each.case.row), quantity, published, units.show(each.predicted, "B", 4), _ratio(each.ratio, 3), fits
    return (*cells, f"{each.spare:.0%}")


def _by_error(rows: Iterable[Compared]) -> list[Compared]:
    return sorted(rows, key=lambda each: abs(each.ratio - 1) if each.ratio is not None else float(each.fits != each.label), reverse=True)


def _ratio(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
