"""A known load for a GPU: copies of a large tensor within its memory, until standard input ends. Then prints bytes per second, each way."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

# Many times any L2, so that each byte is read from HBM and written to it.
_NBYTES: Final = 4 * 2**30


def main(arguments: Sequence[str]) -> None:
    """Copy on the GPU number `arguments[0]`."""
    import torch

    device = torch.device("cuda", int(arguments[0]))
    source = torch.ones(_NBYTES // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    over = threading.Event()
    threading.Thread(target=_wait, args=(over,), daemon=True).start()
    torch.cuda.synchronize(device)
    print("ready", flush=True)
    begin, copies = time.perf_counter(), 0
    while not over.is_set():
        for _ in range(10):
            target.copy_(source)
        torch.cuda.synchronize(device)
        copies += 10
    print(json.dumps({"b_per_s_each_way": copies * _NBYTES / (time.perf_counter() - begin)}), flush=True)


def _wait(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


if __name__ == "__main__":
    main(sys.argv[1:])
