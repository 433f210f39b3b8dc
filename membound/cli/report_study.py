"""`membound study hbm-fine-tuning`: the report's study, its page, and a few lines of what came out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from membound import units
from membound.cli import output, study_measuring
from membound.errors import InputError

if TYPE_CHECKING:
    from membound.measure.plan import Options
    from membound.run.schema import Run
    from membound.study.hbm_fine_tuning.book import Book

FOLDER: Final = Path("build/hbm-fine-tuning")
SCHEMA: Final = 1


@dataclass(frozen=True)
class Measuring:
    """Whether, and how, the study is run for real."""

    wanted: bool = False
    dry_run: bool = False
    """Say what would be measured, and run nothing."""
    steps: int | None = None
    machine: str | None = None
    """The catalogue's name of this machine, where it is not recognised."""
    weights: str | None = None
    """Where weights are made: host or gpu."""
    job_time: str | None = None
    """What one job may take, as the user wrote it."""

    def check(self) -> None:
        """Raises `InputError` for options that mean nothing without `--measure`."""
        valued = {"--steps": self.steps, "--machine": self.machine, "--weights": self.weights, "--job-time": self.job_time}
        given = {"--dry-run": self.dry_run, **{option: value is not None for option, value in valued.items()}}
        for option, there in given.items():
            if there and not self.wanted:
                raise InputError(option, "hbm-fine-tuning", "goes with --measure")

    def options(self) -> Options:
        """How each job is measured. Raises `InputError` or `UnknownNameError` for what cannot be."""
        from membound.cli.measure import chosen
        from membound.measure.plan import STEPS, Options

        limit = None if self.job_time is None else units.parse(self.job_time, "s", "--job-time")
        return Options(STEPS if self.steps is None else self.steps, time_limit=limit, **chosen(weights=self.weights or "host"))


def run(out: Path | None, as_json: bool, measuring: Measuring = Measuring()) -> None:
    """Run it, or go on with it, in `out`; write the page; print what came out. Raises `InputError`, `StorageError`."""
    measuring.check()
    from membound.report.page import files
    from membound.study.hbm_fine_tuning import kept, page
    from membound.study.hbm_fine_tuning.plan import plan

    folder = out or FOLDER
    if measuring.dry_run:
        study_measuring.rehearse(plan(), folder, measuring, as_json)
        return
    files.check_place(folder / files.NAME)
    book = _measured(folder, measuring) if measuring.wanted else _predicted(folder)
    kept.write_published(folder)
    path = files.write(page.page(book), folder)
    if as_json:
        output.write_json(document(book, path))
        return
    output.write(summary(book, path))


def _predicted(folder: Path) -> Book:
    from membound.study.hbm_fine_tuning import runner
    from membound.study.hbm_fine_tuning.book import Book
    from membound.study.hbm_fine_tuning.plan import plan

    return Book.of(plan(), runner.run(plan(), folder, heard=_say))


def _measured(folder: Path, measuring: Measuring) -> Book:
    from membound.study.hbm_fine_tuning.plan import plan

    return study_measuring.run(plan(), folder, measuring, _say)


def document(book: Book, path: Path) -> dict[str, Any]:
    """The study as JSON: every Run's verdict and values, why others failed, and the agreement, misses first."""
    from membound.study.claims import table

    runs, measured = ({name: _told(run) for name, run in some.items()} for some in (book.runs, book.measured))
    agreement = [table.row(each) for each in book.agreements]
    failed = {"failed": dict(book.failed), "not_measured": {**book.why_predicted, **book.unmeasured}}
    return {"schema": SCHEMA, "study": "hbm-fine-tuning", "page": str(path), "runs": runs, "measured": measured, **failed, "agreement": agreement}


def _told(run: Run) -> dict[str, Any]:
    whole = run.document()
    return {key: whole[key] for key in ("origin", "fits", "values")}


def summary(book: Book, path: Path) -> str:
    """A few lines for people; the last one says where the page is."""
    from membound.study.hbm_fine_tuning import agreeing

    lines = [f"{len(book.runs)} of {len(book.plan.points)} runs are there.", agreeing.counted(book)]
    lines += [f"{len(book.measured)} of them were measured on this machine as well."] if book.measured else []
    lines += [f"failed: {name}: {reason}" for name, reason in book.failed.items()]
    lines += [f"not measured: {name}: {reason}" for name, reason in book.unmeasured.items()]
    return "\n".join([*lines, f"page: {path}"]) + "\n"


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
