"""The child process of a capture: reads one request from standard input, runs the Program on the ghost, writes the Trace.

Run as a module, it is told the number of the pipe that hears of its progress.

A Python exception that unwinds through the ghost's device guard aborts the whole process, hence a process of its own, and hence a
failure is written down where it arises. What the parent must know goes through files and one pipe; standard output is nobody's.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from membound.errors import MemboundError

TRACE, FAILURE = "trace", "failure.json"


def main(progress: int) -> None:
    """Answer the request on standard input, {job, config, ranks_per_node, folder}, and end this process. `progress`: where to tell of it."""
    request: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    folder = Path(request["folder"])
    os.set_inheritable(progress, False)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _capture(request, folder, progress)
    # Also what is no Exception: a program may call sys.exit.
    except BaseException as error:
        write_failure(folder, error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    # Threads and hooks that libraries leave behind have nothing left to do.
    os._exit(0)


def _capture(request: dict[str, Any], folder: Path, progress: int) -> None:
    def tell(stage: str, done: int = 0, total: int = 0) -> None:
        os.write(progress, json.dumps({"stage": stage, "done": done, "total": total}).encode() + b"\n")

    from membound.spec.job import Job

    job = Job.model_validate(request["job"])
    tell("starting")
    # A collector runs when it likes; what a trace holds must not depend on it.
    gc.disable()
    from membound.ghost import run

    gc.freeze()
    tell("building")
    trace = run.record(
        job,
        request["config"],
        request["ranks_per_node"],
        on_failure=lambda error: write_failure(folder, error),
        on_micro_step=lambda done, total: tell("training", done, total),
    )
    tell("writing")
    from membound.trace import store

    store.write(trace, folder / TRACE)


def write_failure(folder: Path, error: BaseException) -> None:
    """Put `error` down, so that the parent can raise it again even if this process aborts next."""
    draft = folder / f"{FAILURE}.draft"
    # On a full disk the first failure still goes its way.
    with suppress(OSError):
        draft.write_text(json.dumps(describe(error)))
        draft.replace(folder / FAILURE)


def describe(error: BaseException) -> dict[str, Any]:
    """`error` as JSON: its type, its text and, of our own errors, those attributes that are plain."""
    plain = {name: value for name, value in vars(error).items() if isinstance(value, str | int | float | bool | None)}
    ours = isinstance(error, MemboundError)
    return {"type": type(error).__name__, "text": (str(error) or _where(error))[:2000], "ours": ours, "attributes": plain if ours else {}}


def _where(error: BaseException) -> str:
    """The line that raised `error`, for one that says nothing, such as an assertion."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    last = frames[-1]
    file = last.filename.rpartition("site-packages/")[2]
    return f"{last.line or last.name} ({file}, line {last.lineno})"


def _end_with_parent() -> None:
    # The parent holds the other end open for as long as it wants an answer.
    while sys.stdin.buffer.read(1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
