"""A recording: sensors sampled on a grid while a job runs, kept in a folder of Parquet parts and a manifest.

    with Recording(folder, Source()) as recording:
        ...                                  # the job; recording.epoch_ns is the moment 0 of all times
    samples = read(folder)                   # also while it runs, and after any process was killed
    samples.tables["gpu"], samples.manifest["grid"], samples.ended

Two processes of their own do the work, so that no training code can hold them up: the *sampler*, which asks the sensors and writes a ring in
shared memory, and the *drainer*, which moves the ring to disk each second. They end by themselves when the process that started them is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self

from membound import folders
from membound.errors import InputError, MeasureError
from membound.measure import spawn, sweep
from membound.measure.control import Control, State
from membound.measure.hold import Hold
from membound.measure.manifest import STOPPED
from membound.measure.source import Fault, Source

if TYPE_CHECKING:
    from membound.measure.samples import Samples

__all__ = ["Fault", "Recording", "Source", "read"]

# Finest grid, s: beneath it the sampler's own work would fill a core (measured by benchmarks/sampler.py).
_FINEST: Final = 0.001
# Learning takes its own time, and the driver of eight GPUs that nobody holds open takes some 20 s to load.
_START_LIMIT: Final = 60.0
# The drainer writes what is left and joins its parts: well under a second, more on a disk that is busy.
_STOP_LIMIT: Final = 30.0
# How often a process that died is started again, before the recording goes on without it.
_RESTARTS: Final = 5


class Recording:
    """Samples every sensor of the machine while the block runs.

    Args: `folder` is made if need be, and must be empty. `source` says which machine answers. `period` is the grid of the table `gpu` and
    `host_period` that of `host`, s. `gpus` are the numbers of the GPUs to sample as the driver counts them, None: all. `hbm`: with "pm" the
    HBM's bytes are counted by performance-monitor sampling, which holds the GPU's clocks: a repetition of its own; "auto" never does that.
    `learn` is how long the signals are polled at the start to find their native periods, s.

    Raises `InputError` for values out of range, `StorageError` where the disk refuses, `MeasureError` where the sampler does not start.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        period: float = 0.02,
        host_period: float = 1.0,
        gpus: Sequence[int] | None = None,
        hbm: Literal["auto", "pm"] = "auto",
        learn: float = 1.0,
    ) -> None:
        if not _FINEST <= period <= 10.0:
            raise InputError("period", period, f"choose a grid between {_FINEST} s and 10 s")
        if not period <= host_period <= 3600.0:
            raise InputError("host_period", host_period, "choose a grid between that of the GPUs and 3600 s")
        self._folder = folder
        self._epoch_ns = 0
        self._plan = {
            "folder": str(folder.absolute()), "source": source.document(), "period": period, "host_period": host_period,
            "gpus": None if gpus is None else list(gpus), "hbm": hbm, "learn": learn,
        }  # fmt: skip
        self._crew: _Crew | None = None
        self._control: Control | None = None
        self._hold: Hold | None = None

    @property
    def epoch_ns(self) -> int:
        """`time.monotonic_ns` at the Run's start: the tables' times are s since then. 0 before the block is entered."""
        return self._epoch_ns

    def __enter__(self) -> Self:
        _claim(self._folder)
        sweep.sweep()
        shared = spawn.shared_folder() / f"membound-{uuid.uuid4().hex}"
        plan = {**self._plan, "shared": str(shared), "owner": os.getpid(), "boot": spawn.boot_id()}
        self._control = self._share(shared)
        try:
            (self._folder / "plan.json").write_text(json.dumps(plan, indent=1) + "\n")
        except OSError as error:
            self._give_back()
            raise folders.disk_error(self._folder, error) from None
        try:
            self._crew = _Crew(self._folder, self._control)
            self._await_ready()
        except OSError as error:
            self._end()
            raise MeasureError(f"the sampler's processes cannot be started: {error}") from None
        except BaseException:
            self._end()
            raise
        self._epoch_ns = time.monotonic_ns()
        self._control.set("epoch_ns", self._epoch_ns)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _share(self, shared: Path) -> Control:
        """The folder in shared memory, held from before anybody could take it for one that was left behind."""
        try:
            shared.mkdir()
            self._hold = Hold.first(shared)
            (shared / sweep.FOLDER).write_text(str(self._folder.absolute()))
            return Control.create(shared)
        except OSError as error:
            shutil.rmtree(shared, ignore_errors=True)
            if self._hold is not None:
                self._hold.release()
            raise spawn.memory_error(error) from None

    def _give_back(self) -> None:
        assert self._control is not None
        assert self._hold is not None
        self._control.close(remove=True)
        self._hold.release()

    def _await_ready(self) -> None:
        assert self._control is not None
        assert self._crew is not None
        deadline = time.monotonic() + _START_LIMIT
        while self._control.get("state") < State.READY:
            if self._crew.gave_up:
                raise MeasureError(f"the sampler did not start: {self._crew.last_words()}")
            if time.monotonic() > deadline:
                raise MeasureError(f"the sampler did not start within {_START_LIMIT:.0f} s: a driver that hangs, or a machine with no core free")
            time.sleep(0.002)

    def _end(self) -> None:
        assert self._control is not None
        if self._crew is None:
            # One of the two may have been started.
            self._control.set("stop", 1)
        else:
            self._crew.close()
        # Where the drainer was killed, and not there to do it.
        sweep.seal(self._folder, self._control, STOPPED)
        self._give_back()


class _Crew:
    """The two processes, and a thread that starts one again should it die."""

    def __init__(self, folder: Path, control: Control) -> None:
        self._folder = folder
        self._control = control
        self._lock = threading.Lock()
        self._stopping = False
        self._restarts = {"sampler": 0, "drain": 0}
        self.gave_up = False
        self._running = {name: self._start(name) for name in self._restarts}
        self._thread = threading.Thread(target=self._watch, name="membound-watch", daemon=True)
        self._thread.start()

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        return spawn.start(f"membound.measure.{name}", [str(self._folder.absolute())], self._folder / f"{name}.log")

    def _watch(self) -> None:
        while not self._stopping:
            for name, process in list(self._running.items()):
                if process.poll() is not None:
                    self._again(name)
            time.sleep(0.05)

    def _again(self, name: str) -> None:
        with self._lock:
            if self._stopping or self.gave_up:
                return
            if self._restarts[name] >= _RESTARTS or (name == "sampler" and self._control.get("state") < State.READY):
                self.gave_up = True
                self._control.set("gave_up", 1)
                return
            self._restarts[name] += 1
            self._control.set(f"{name}_restarts", self._restarts[name])
            # A machine that has no process to give now may have one the next time.
            with contextlib.suppress(OSError):
                self._running[name] = self._start(name)

    def last_words(self) -> str:
        """The last line that the sampler wrote to its log."""
        try:
            lines = (self._folder / "sampler.log").read_text(errors="replace").split("\n")
        except OSError:
            lines = []
        return next((line for line in reversed(lines) if line.strip()), "it said nothing")

    def close(self) -> None:
        """Wait for both to end by themselves; end them if they do not."""
        with self._lock:
            self._stopping = True
        self._control.set("stop", 1)
        self._thread.join()
        for process in self._running.values():
            try:
                process.wait(_STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _claim(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = any(folder.iterdir())
    except OSError as error:
        raise folders.disk_error(folder, error) from None
    if foreign:
        raise InputError("folder", str(folder), "this folder holds something already: choose another for the recording")


def read(folder: Path) -> Samples:
    """The samples in `folder` so far: `membound.measure.samples.read`. Raises `RecordError` if it holds no recording."""
    # Arrow is loaded by who reads, not by who only records: that may be the user's training process.
    from membound.measure import samples

    return samples.read(folder)
