"""Stands in for the child of a capture: does what the Job's model says, without PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main(progress: int) -> None:
    request = json.loads(sys.stdin.buffer.readline())
    folder, act = Path(request["folder"]), request["job"]["model"]
    print("noise on standard output", flush=True)
    os.write(progress, json.dumps({"stage": "starting", "done": 0, "total": 0}).encode() + b"\n")

    if act == "sleep":
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(os.environ["STAND_IN_NOTES"]).write_text(json.dumps([os.getpid(), grandchild.pid, str(folder)]))
        os.write(progress, json.dumps({"stage": "training", "done": 0, "total": 1}).encode() + b"\n")
        time.sleep(600)
    if act == "grow":
        held = []
        while True:
            held.append(bytearray(os.urandom(1 << 20) * 8))
    if act == "abort":
        (folder / "failure.json").write_text(
            json.dumps({"type": "ZeroDivisionError", "text": "told before\nthe end", "ours": False, "attributes": {}})
        )
        os.abort()
    if act == "crash":
        print("RuntimeError: last words\n   \nmore noise", file=sys.stderr, flush=True)
        os.abort()
    sys.stdout.flush()
    os._exit(3)


if __name__ == "__main__":
    main(int(sys.argv[1]))
