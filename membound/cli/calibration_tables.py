"""The calibration study on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from membound.study.calibration.leave_one_out import Calibration


def calibration(result: Calibration) -> RenderableType:
    """Errors by law and GPU, and the speed-up from H100 to H200."""
    from rich.console import Group

    tables = _errors(result), _bins(result)
    return Group(*(table for table in tables if table is not None))


def _errors(result: Calibration) -> RenderableType | None:
    from membound.cli.study_tables import titled

    head = ("law", "GPU", "left out", "kernels", "median", "mean", "90th percentile", "bias")
    rows = [(e.law, e.gpu, e.left_out, f"{e.count:,}", f"{e.median:.1%}", f"{e.mean:.1%}", f"{e.p90:.1%}", f"{e.bias:+.1%}") for e in result.errors]
    return titled("predicted over measured kernels", head, rows)


def _bins(result: Calibration) -> RenderableType | None:
    from membound.cli.study_tables import titled

    head = ("FLOP/B", "matmuls", "measured", "predicted", "difference")
    rows = [
        (_span(b.low, b.high), f"{b.count:,}", f"{b.measured:.3f}", f"{b.predicted:.3f}", f"{(b.predicted - b.measured) * 100:+.1f} points")
        for b in result.bins
    ]
    return titled("speed-up from H100 to H200, predicted from the H100's times and the H200's bandwidth", head, rows)


def _span(low: float, high: float) -> str:
    return f"{low:g} and more" if high >= 1e9 else f"{low:g} to {high:g}"
