"""`python -m membound.measure.recorded OUT --seconds N [--name NAME] [--load]`: record this machine, and probe what documents leave open.

Reads only: no clock, limit or mode is changed. Needs nvidia-ml-py; `--load` needs PyTorch with CUDA, and keeps GPU 0 copying meanwhile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from membound import folders
from membound.errors import MeasureError, MemboundError
from membound.measure.doors import open_doors
from membound.measure.recorded import probes, recorder
from membound.measure.sensors.nvml import Refused
from membound.measure.sensors.nvml_offer import no_driver
from membound.measure.source import Source

# Signals of GPU 0 are watched no longer, s: the slowest is new once a second. The other GPUs are alike.
_LONGEST: Final = 5.0


def main() -> None:
    """The command."""
    options = _options()
    try:
        folder: Path = options.out
        folder.mkdir(parents=True, exist_ok=True)
        doors = open_doors(Source(options.machine))
        found: dict[str, Any] = {}
        with _load(options.load) as load:
            path = recorder.record(doors, options.name, options.about, options.seconds, folder)
            found["probes"] = probes.probe(doors, 0, min(options.seconds, _LONGEST))
        recorder.report(folder / "probes.json", {**found, "load": load})
        print(path)
    except OSError as error:
        sys.exit(f"membound: {folders.disk_error(options.out, error)}")
    except MemboundError as error:
        sys.exit(f"membound: {error}")
    except (Refused, ImportError) as error:
        sys.exit(f"membound: there is no NVIDIA GPU to record: {no_driver(error).reason}")


@contextmanager
def _load(wanted: bool) -> Iterator[dict[str, Any]]:
    """Keep GPU 0 copying during the block; what it reached is in the dictionary afterwards."""
    reached: dict[str, Any] = {}
    if not wanted:
        yield reached
        return
    command = [sys.executable, "-m", "membound.measure.recorded.load", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise MeasureError("the load did not start: does PyTorch find the GPU?")
        yield reached
        reached.update(json.loads(process.communicate()[0]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m membound.measure.recorded", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write into")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to record, s")
    parser.add_argument("--name", default="recorded", help="name of the machine")
    parser.add_argument("--about", default="", help="what the machine did meanwhile, in a sentence")
    parser.add_argument("--load", action="store_true", help="keep GPU 0 copying meanwhile")
    parser.add_argument("--machine", default="real", help="another recorded machine, to record that")
    return parser.parse_args()


if __name__ == "__main__":
    main()
