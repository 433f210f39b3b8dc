"""Keep what `membound study hbm-fine-tuning --measure` measured as records of own runs, beside those of `measure_jobs.py`.

    python validation/keep_study.py build/hbm-fine-tuning/runs validation/h200/results-5.jsonl

Each finished `NAME.measured` becomes a line of the file and its tables a folder of the archive beside it (series-5.tar), named `study-NAME`. What
is there already under a name stays.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import measure_jobs

from membound.errors import RecordError
from membound.run import store
from membound.study.hbm_fine_tuning.measurements import SUFFIX


def main() -> None:
    """Every measured Run of the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("results", type=Path)
    asked = parser.parse_args()
    archive = asked.results.with_name(asked.results.name.replace("results", "series")).with_suffix(".tar")
    for folder in sorted(asked.runs.glob(f"*{SUFFIX}")):
        title = f"study-{folder.name.removesuffix(SUFFIX).removesuffix('.here')}"
        print(f"{title:40} {keep(title, folder, asked.results, archive)}")


def keep(title: str, folder: Path, results: Path, archive: Path) -> str:
    """Keep one Run under `title`; what became of it."""
    if title in measure_jobs.done(results):
        return "there already"
    try:
        run = store.read(folder)
    except RecordError as error:
        return str(error)
    if run.about["ended"]["how"] != "done":
        return str(run.about["ended"]["said"])
    measure_jobs.keep(archive, folder / "tables", title)
    measure_jobs.note(results, {"name": title, "seconds": None, "error": None, "run": run.document()})
    return measure_jobs.line(run)


if __name__ == "__main__":
    main()
