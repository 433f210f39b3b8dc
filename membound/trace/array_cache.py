"""Arrays kept by content: what took long to work out is worked out once. A convenience, as the Trace cache is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from membound.errors import RecordError
from membound.trace.cache import warn
from membound.trace.kept import Kept

Arrays = Mapping[str, npt.NDArray[np.int64]]

CAP: Final = 5e8
"""Bytes that all entries together may take."""


@dataclass(frozen=True)
class ArrayCache:
    """A folder of named arrays of whole numbers by key."""

    folder: Path
    cap: float = CAP
    warn: Callable[[str], None] = warn

    def get(self, key: str) -> dict[str, npt.NDArray[np.int64]] | None:
        """The arrays of `key`, or None: not there, or damaged, and then removed."""
        return self._kept.read(key, _read)

    def put(self, key: str, arrays: Arrays) -> None:
        """Keep `arrays`; forget the longest unused ones beyond `cap`. Warns instead of failing."""
        self._kept.write(key, lambda folder: _write(arrays, folder))

    def usage(self) -> tuple[int, int]:
        """Entries and bytes that the cache holds."""
        return self._kept.usage()

    @property
    def _kept(self) -> Kept:
        return Kept(self.folder / "replays", "arrays", "a replay", self.cap, self.warn)


def _write(arrays: Arrays, folder: Path) -> None:
    folder.mkdir()
    for name, array in arrays.items():
        pq.write_table(pa.table({name: pa.array(array, pa.int64())}), folder / f"{name}.parquet", compression="zstd", compression_level=1)


def _read(folder: Path) -> dict[str, npt.NDArray[np.int64]]:
    try:
        return {file.stem: np.asarray(pq.ParquetFile(file).read().column(0)) for file in folder.iterdir()}
    except pa.ArrowException as error:
        raise RecordError(f"{folder}: not readable arrays ({error})") from None
