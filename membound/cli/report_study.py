"""`membound study hbm-fine-tuning`: the report's study, its page, and a few lines of what came out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from membound.cli import output
from membound.errors import InputError

if TYPE_CHECKING:
    from membound.study.hbm_fine_tuning.book import Book

FOLDER: Final = Path("build/hbm-fine-tuning")
SCHEMA: Final = 1


def run(out: Path | None, as_json: bool, measure: bool) -> None:
    """Run it, or go on with it, in `out`; write the page; print what came out. Raises `InputError`, `StorageError`."""
    if measure:
        raise InputError("--measure", "hbm-fine-tuning", "this study is predicted only: measure single jobs with `membound measure JOB --out DIR`")
    from membound.report.page import files
    from membound.study.hbm_fine_tuning import kept, page, runner
    from membound.study.hbm_fine_tuning.book import Book
    from membound.study.hbm_fine_tuning.plan import plan

    folder = out or FOLDER
    files.check_place(folder / files.NAME)
    book = Book.of(plan(), runner.run(plan(), folder, heard=_say))
    kept.write_published(folder)
    path = files.write(page.page(book), folder)
    if as_json:
        output.write_json(document(book, path))
        return
    output.write(summary(book, path))


def document(book: Book, path: Path) -> dict[str, Any]:
    """The study as JSON: every Run's verdict and values, why others failed, and the agreement, misses first."""
    from membound.study import report_claims_table

    runs = {name: {key: run.document()[key] for key in ("origin", "fits", "values")} for name, run in book.runs.items()}
    agreement = [report_claims_table.row(each) for each in book.agreements]
    return {"schema": SCHEMA, "study": "hbm-fine-tuning", "page": str(path), "runs": runs, "failed": dict(book.failed), "agreement": agreement}


def summary(book: Book, path: Path) -> str:
    """A few lines for people; the last one says where the page is."""
    from membound.study.hbm_fine_tuning import agreeing

    lines = [f"{len(book.runs)} of {len(book.plan.points)} runs are there.", agreeing.counted(book)]
    lines += [f"failed: {name}: {reason}" for name, reason in book.failed.items()]
    return "\n".join([*lines, f"page: {path}"]) + "\n"


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
