"""Figure 1: how models grew, from published sizes; Figure 4: what ZeRO leaves on each device, from the ghost beside the paper's formula."""

from __future__ import annotations

from typing import Final

from membound.report.charts.bubbles import Axis
from membound.report.charts.data import Column
from membound.report.charts.figure import Figure
from membound.report.charts.lines import Line, Lines
from membound.report.charts.stacked_bars import Part, StackedBars
from membound.report.charts.table import Table
from membound.run.schema import Run
from membound.study.hbm_fine_tuning import book as books
from membound.study.hbm_fine_tuning.book import Book, rows

# Rajbhandari et al., ZeRO, SC20, section 3.1: 16-bit weights, 16-bit gradients, and K bytes of optimizer states for each parameter.
_WEIGHTS, _GRADIENTS, _K = 2.0, 2.0, 12.0
_AT_WORK: Final = {"yes": "some", "no": "all"}
_SIZES: Final = "model_sizes.csv"
_STAGES: Final = ("not sharded", "ZeRO-1", "ZeRO-2", "ZeRO-3")
_STATES: Final = {"weights": "weights", "gradients": "gradients", "optimizer": "optimizer states"}


def growth() -> Figure:
    """Figure 1."""
    known = rows(_SIZES)
    dense, sparse = ([row for row in known if row["sparse"] == which] for which in ("no", "yes"))
    first, last = known[0], max(dense, key=lambda row: float(row["parameters"]))
    times = float(last["parameters"]) / float(first["parameters"])
    return Lines(
        title="Sizes of language models, 2017 to 2024", label="Figure 1", x=Axis("year", ""), y=Axis("parameters", ""), log_y=True,
        lines=(_sizes("all parameters at work", dense), _sizes("some at work for each token", sparse)),
        says=f"From {first['name']} ({first['year']}) to {last['name']} ({last['year']}) the largest dense model grew {times:,.0f} times.",
        source="the models' own papers, named in the table",
        notes=("GPT-4, Gemini and others whose makers publish no size are left out.",),
    )  # fmt: skip


def growth_table() -> Table:
    """The models of Figure 1, each with its source."""
    columns = (Column("published"), Column("parameters"), Column("at work for a token"), Column("model and source"))
    found = tuple((_month(row), _billions(row), _AT_WORK[row["sparse"]], f"{row['name']}: {row['source']}") for row in rows(_SIZES))
    return Table(title="Models of Figure 1", label="Table A3", columns=columns, rows=found, says=f"{len(found)} models whose size is published.")


def _month(row: dict[str, str]) -> str:
    return f"{row['year']}-{int(row['month']):02}"


def _billions(row: dict[str, str]) -> str:
    return f"{float(row['parameters']) / 1e9:,.4g} B"


def _sizes(name: str, found: list[dict[str, str]]) -> Line:
    return Line(
        name,
        tuple(int(row["year"]) + (int(row["month"]) - 1) / 12 for row in found),
        tuple(float(row["parameters"]) for row in found),
        published=True,
    )


def zero(book: Book) -> Figure:
    """Figure 4."""
    title, names = "Model states of Llama 7B on each of eight GPUs", [f"llama-7b-stage-{stage}.2619" for stage in range(4)]
    why = book.without(names)
    if why:
        return books.absent("Figure 4", title, why)
    runs = [book.runs[name] for name in names]
    parts = tuple(Part(words, tuple(run.number(f"gpu.memory.{category}") or 0.0 for run in runs)) for category, words in _STATES.items())
    formula = tuple(states(runs[0].number("model.parameters") or 0.0, _devices(runs[0]), stage) for stage in range(4))
    ours = [sum(part.values[stage] or 0.0 for part in parts) for stage in range(4)]
    ratios = ", ".join(f"{stage} {mine / paper:.2f}" for stage, mine, paper in zip(_STAGES, ours, formula, strict=True))
    return StackedBars(
        title=title, label="Figure 4", unit="B", categories=_STAGES, parts=parts, published=formula,
        says=f"Ours at the allocated peak over the paper's formula: {ratios}.",
        source="bars: ghost GPU; diamonds: (2 + 2 + K) bytes for each parameter, K = 12, sharded as Rajbhandari et al. (2020) have it",
        notes=("DeepSpeed's bf16 engine keeps gradients of its own in 32 bits, and ZeRO-3 gathers layers: what the formula leaves out.",),
    )  # fmt: skip


def states(parameters: float, devices: int, stage: int) -> float:
    """Bytes of model states on one device under ZeRO's `stage`, 0 to 3, by the paper's formula."""
    weights, gradients, optimizer = _WEIGHTS * parameters, _GRADIENTS * parameters, _K * parameters
    return weights / (devices if stage >= 3 else 1) + gradients / (devices if stage >= 2 else 1) + optimizer / (devices if stage >= 1 else 1)


def _devices(run: Run) -> int:
    return int(run.job["gpus"])
