"""The command line for tests: as a process forked from one with its imports done, or as one that begins like any other."""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
from pathlib import Path

from tests.prepared import Prepared

_MODULES = (
    *("membound.cli.app", "membound.spec.jobfile", "membound.trace.cache", "membound.report.terminal", "membound.report.files"),
    *("membound.study.answers", "membound.study.predicting", "membound.study.sweep.predicting", "membound.study.calibration.fitting"),
    *("dateutil.parser", "matplotlib.figure", "pyarrow.parquet"),
)
_CODE = "from membound.cli.app import main; main()"


def membound(*arguments: str, stdin: str = "", folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `membound` with `arguments` says and how it ends; forked."""
    return _prepared().run(_CODE, *arguments, stdin=stdin, environment={**os.environ, **environment}, folder=folder)


def from_nothing(*arguments: str, stdin: str = "", folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in a new Python, whose start and imports are looked at too."""
    command = [sys.executable, "-m", "membound", *arguments]
    surroundings = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, input=stdin, env=surroundings, cwd=folder, check=False)


@functools.cache
def _prepared() -> Prepared:
    prepared = Prepared("\n".join(f"import {name}" for name in _MODULES), os.environ)
    atexit.register(prepared.close)
    return prepared
