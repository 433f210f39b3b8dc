"""`membound measure`: run a Job for real, or watch any command, and see what it did to memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand

from membound import units
from membound.cli import output
from membound.cli.options import AsJson, ThisMachine
from membound.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from membound.measure.plan import Options
    from membound.run.schema import Run

_COMMAND: Final = "membound.command"
# timeout(1) of GNU coreutils: the status of a command that it ended.
_TIMED_OUT: Final = 124

_CHOICES: Final = {
    "hbm": ("auto", "pm"),
    "feed": ("rows", "planned"),
    "weights": ("host", "gpu"),
    "launcher": ("auto", "alone", "torchrun", "deepspeed"),
}

_JobFile = Annotated[str | None, typer.Argument(metavar="[JOB | -- COMMAND ...]", help="Job file (YAML), or any command after --.")]
_Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder of the run; by default a new one in membound-runs.")]
_Set = Annotated[list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a field of the job: recipe.micro_batch=8.")]
_Steps = Annotated[int, typer.Option("--steps", metavar="N", help="Optimizer steps, warm-up included.")]
_WarmUp = Annotated[int, typer.Option("--warm-up", metavar="N", help="First steps that no mean, median or rate counts.")]
_Period = Annotated[str, typer.Option("--period", metavar="TIME", help="Grid of the sampler.")]
_Hbm = Annotated[str, typer.Option("--hbm", metavar="auto|pm", help="pm counts HBM bytes at 20 ms where permitted; it holds the GPU's clocks.")]
_Feed = Annotated[str, typer.Option("--feed", metavar="rows|planned", help="The data's own rows, or the longest that memory is planned for.")]
_Weights = Annotated[str, typer.Option("--weights", metavar="host|gpu", help="Where random weights are made; on the GPU it is quicker.")]
_Launcher = Annotated[str, typer.Option("--launcher", metavar="auto|alone|torchrun|deepspeed", help="Who starts the ranks.")]
_Nodes = Annotated[int, typer.Option("--nodes", metavar="N", help="Nodes of the job, each started by this same command.")]
_NodeRank = Annotated[int, typer.Option("--node-rank", metavar="N", help="Number of this node.")]
_Meeting = Annotated[str, typer.Option("--rendezvous", metavar="HOST:PORT", help="Where the nodes meet: an address of node 0.")]
_HostLimit = Annotated[str | None, typer.Option("--host-limit", metavar="SIZE", help="Data that one process may hold on the host.")]
_TimeLimit = Annotated[str | None, typer.Option("--time-limit", metavar="TIME", help="End the job after this time.")]
_Overhead = Annotated[bool, typer.Option("--overhead", help="Repeat the job with and without the sampler, and say what it costs.")]
_Recover = Annotated[Path | None, typer.Option("--recover", metavar="DIR", help="Put together the run of a measurement that was killed.")]
_Merge = Annotated[list[Path] | None, typer.Option("--merge", metavar="DIR", help="Merge the runs of several nodes into --out; once per node.")]


class MeasureCommand(TyperCommand):
    """Takes everything after `--` as the command to watch, whatever options it has."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set the command aside, then read what is left as usual."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[_COMMAND] = args[at + 1 :]
            args = args[:at]
        found: list[str] = super().parse_args(ctx, args)
        return found


def measure(
    ctx: typer.Context,
    job: _JobFile = None,
    out: _Out = None,
    as_json: AsJson = False,
    changes: _Set = None,
    machine: ThisMachine = None,
    steps: _Steps = 20,
    warm_up: _WarmUp = 3,
    period: _Period = "20ms",
    hbm: _Hbm = "auto",
    feed: _Feed = "rows",
    weights: _Weights = "host",
    launcher: _Launcher = "auto",
    nodes: _Nodes = 1,
    node_rank: _NodeRank = 0,
    rendezvous: _Meeting = "",
    host_limit: _HostLimit = None,
    time_limit: _TimeLimit = None,
    overhead: _Overhead = False,
    recover: _Recover = None,
    merge: _Merge = None,
) -> None:
    """Run a Job on this machine, or watch a command, with every sensor sampled."""
    from membound.measure.plan import Nodes, Options

    command: list[str] | None = ctx.meta.get(_COMMAND)
    if sum(given is not None for given in (job, command, recover)) + bool(merge) != 1:
        raise typer.BadParameter("give a job file, or a command after --, or --recover, or --merge")
    options = Options(
        steps=steps,
        warm_up=warm_up,
        period=units.parse(period, "s", "--period"),
        host_limit=None if host_limit is None else units.parse(host_limit, "B", "--host-limit"),
        time_limit=None if time_limit is None else units.parse(time_limit, "s", "--time-limit"),
        nodes=Nodes(nodes, node_rank, rendezvous),
        **chosen(hbm=hbm, feed=feed, weights=weights, launcher=launcher),
    )
    if recover is not None:
        _show(_recovered(recover), as_json, recover)
    elif merge:
        _show(_merged(merge, out), as_json, out)
    elif command is not None:
        _watch(command, out, options, as_json)
    else:
        _measure(str(job), out, options, as_json, changes or [], machine, overhead)


def chosen(**given: str) -> dict[str, Any]:
    """The options that take one of a few words, each checked."""
    for name, word in given.items():
        if word not in _CHOICES[name]:
            raise UnknownNameError(f"--{name}", word, _CHOICES[name])
    return given


def _measure(job: str, out: Path | None, options: Options, as_json: bool, changes: list[str], machine: str | None, overhead: bool) -> None:
    from membound.measure import door
    from membound.study import measuring

    for change in changes:
        if change.startswith("machine."):
            raise InputError("--set", change, "this machine is as it is: only fields of the job can be set")
    asked = door.read_job(job, changes, machine)
    place = door.place_for(out, asked.model)
    if overhead:
        run = measuring.measure_overhead(asked, place.folder, options, machine)
    else:
        run = measuring.measure(asked, place.folder, options, machine, on_step=_told(options.steps))
    _show(run, as_json, place.folder)
    _leave(run)


def _told(steps: int) -> Any:
    """Who hears of steps: a line on standard error, where somebody watches it."""
    if not sys.stderr.isatty():
        return lambda step: None

    def tell(step: Any) -> None:
        loss = step.get("loss")
        text = f"step {step['step'] + 1} of {steps}" + (f", loss {loss:.3f}" if loss is not None else "")
        print(f"\r\033[K{text}", end="\n" if step["step"] + 1 == steps else "", file=sys.stderr, flush=True)

    return tell


def _watch(command: list[str], out: Path | None, options: Options, as_json: bool) -> None:
    from membound.measure import door
    from membound.study import measuring

    if not command:
        raise InputError("command", "", "write one after --")
    place = door.place_for(out, command[0])
    run = measuring.measure_command(command, place.folder, options, quiet=as_json)
    if as_json:
        output.write_json(run.document())
    else:
        # The command's own output is on standard output: what we say of it goes beside.
        _summarise(run, place.folder, sys.stderr.isatty())
    _leave(run)


def _recovered(folder: Path) -> Run:
    from membound.study import measuring

    return measuring.recover(folder)


def _merged(folders: list[Path], out: Path | None) -> Run:
    from membound.measure.nodes import merge
    from membound.run import store
    from membound.study import measuring

    if out is None:
        raise InputError("--out", "", "say where the merged run goes")
    run = merge([measuring.load(folder) for folder in folders])
    store.write(run, out)
    return run


def _show(run: Run, as_json: bool, folder: Path | None) -> None:
    if as_json:
        output.write_json(run.document())
        return
    from membound.cli import measure_tables

    output.show(measure_tables.summary(run))
    output.write(f"\nwritten to {folder}\n")


def _summarise(run: Run, folder: Path, whole: bool) -> None:
    """A watched command's summary on standard error: a table for a person, a line for a log."""
    if whole:
        from rich.console import Console

        from membound.cli import measure_tables

        Console(stderr=True).print(measure_tables.summary(run))
    print(f"membound: {run.about['ended']['said']}; the run is in {folder}", file=sys.stderr)


def _leave(run: Run) -> None:
    """Exit as the command did, 128 + N if signal N killed it; for a Job 0, or 128 + N if signal N stopped it."""
    ended = run.about["ended"]
    status = int(ended["status"] or 0)
    if ended["how"] == "timed-out":
        raise typer.Exit(_TIMED_OUT)
    if "command" in run.job:
        raise typer.Exit(128 - status if status < 0 else status)
    if ended["how"] == "stopped":
        raise typer.Exit(128 + int(ended["asked"]))
