"""Keep every visible GPU busy with matrix products until standard input ends: `python -m membound.measure.multiply`. Prints `ready` once it does."""

from __future__ import annotations

import sys
import threading
from typing import Final

import torch

# Rows and columns: large enough that the GPU is busy throughout, and small enough for any of them (128 MiB a matrix).
_SIZE: Final = 8192


def main() -> None:
    """Multiply until nobody wants it any more."""
    count = torch.cuda.device_count()
    if not count:
        sys.exit("PyTorch sees no GPU here to keep busy")
    stop = threading.Event()
    threading.Thread(target=_wait, args=(stop,), daemon=True).start()
    matrices = [torch.randn(_SIZE, _SIZE, device=torch.device("cuda", number), dtype=torch.float16) for number in range(count)]
    told = False
    while not stop.is_set():
        for matrix in matrices:
            torch.mm(matrix, matrix)
        for number in range(count):
            torch.cuda.synchronize(number)
        if not told:
            print("ready", flush=True)
            told = True


def _wait(stop: threading.Event) -> None:
    sys.stdin.buffer.read()
    stop.set()


if __name__ == "__main__":
    main()
