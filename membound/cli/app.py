"""The door of the command line: verbs, and the one place where errors become a line and an exit status.

Status: 0 done (also when a Job does not fit: that is an answer), 1 refused with one line, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from membound import __version__
from membound.cli import calibrate, catalogue, compare, doctor, measure, predict, report, restore, study, sweep
from membound.cli.output import discard_output, write
from membound.errors import MemboundError

app = typer.Typer(
    name="membound",
    help="What memory does to a fine-tune: on the GPU you have, and on one you don't.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("predict")(predict.predict)
app.command("measure", cls=measure.MeasureCommand)(measure.measure)
app.command("sweep")(sweep.sweep)
app.command("calibrate")(calibrate.calibrate)
app.command("compare")(compare.compare)
app.command("study")(study.study)
app.command("catalogue")(catalogue.catalogue)
app.command("doctor")(doctor.doctor)
app.command("report")(report.report)
app.command("restore")(restore.restore)


class _Stopped(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        self.number = number


def _print_version(wanted: bool) -> None:
    if wanted:
        write(f"membound {__version__}\n")
        raise typer.Exit


_Version = Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)]


@app.callback()
def _options(version: _Version = False) -> None:
    pass


def main() -> NoReturn:
    """Run the command line and exit."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except MemboundError as error:
        status = _say(str(error), 1)
    except _Stopped as stopped:
        status = _say("interrupted" if stopped.number == signal.SIGINT else "stopped", 128 + stopped.number)
    except BrokenPipeError:
        discard_output()
        status = 128 + signal.SIGPIPE
    sys.exit(status)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    # Once: whatever cleans up on the way out is not to be stopped again.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise _Stopped(number)


def _say(text: str, status: int) -> int:
    print(f"membound: {text}", file=sys.stderr)
    return status
