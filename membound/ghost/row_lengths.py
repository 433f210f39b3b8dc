"""How long the rows of a Job's data are: stored counts, or the user's own file under the user's own tokenizer, counted in a child process."""

from __future__ import annotations

import json
import subprocess
import sys

from membound.errors import CaptureError
from membound.spec import lengths
from membound.spec.job import Job

# Tokenising 52,000 rows takes some 10 s; a file far larger is sampled by its reader, s.
_LIMIT = 300.0


def of(job: Job) -> list[int] | None:
    """Tokens of each row before truncation; None where all rows have the length that the Job says. Raises `CaptureError`."""
    if job.data.lengths is not None:
        return lengths.stored(job.data.lengths)
    if job.data.path is None:
        return None
    command = [sys.executable, "-m", "membound.programs.count_rows", str(job.data.path), str(job.data.tokenizer)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise CaptureError(f"data.path: {job.data.path}: counting its tokens took longer than {_LIMIT:g} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise CaptureError(f"data.path: {job.data.path}: {last}")
    return list(json.loads(done.stdout))
