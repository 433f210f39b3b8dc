"""Which DIMMs the host has: the firmware's own table, SMBIOS structures of type 17."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from membound.measure.sensors.files import Files

TABLE: Final = "/sys/firmware/dmi/tables/DMI"
# All of the following: DMTF DSP0134 (SMBIOS reference), 7.18 Memory Device.
_TYPE: Final = 17
_KINDS: Final = {0x18: "DDR3", 0x1A: "DDR4", 0x1E: "LPDDR4", 0x20: "HBM", 0x21: "HBM2", 0x22: "DDR5", 0x23: "LPDDR5", 0x24: "HBM3"}
_SIZE_AT, _LOCATOR_AT, _KIND_AT, _SPEED_AT, _PART_AT, _RANKS_AT, _LONG_SIZE_AT, _SET_SPEED_AT = 0x0C, 0x10, 0x12, 0x15, 0x1A, 0x1B, 0x1C, 0x20
_UNKNOWN: Final = 0xFFFF
_LONG_SIZE: Final = 0x7FFF
_MIB: Final = 2**20


@dataclass(frozen=True)
class Dimm:
    """One module. None: the firmware does not say."""

    slot: str
    nbytes: int
    kind: str | None
    rate: float | None
    """Transfers per second that it is made for."""
    set_rate: float | None
    """Transfers per second that it runs at: less, where two share a channel."""
    ranks: int | None
    part: str | None


def dimms(files: Files) -> list[Dimm]:
    """The modules that are in their slots. Raises `OSError` (root alone may read the table on most systems), `ValueError` if it is damaged."""
    try:
        return [dimm for body, strings in _structures(files.data(TABLE)) if (dimm := _dimm(body, strings)) is not None]
    except (struct.error, IndexError) as error:
        raise ValueError(f"{TABLE}: {error}") from None


def _structures(table: bytes) -> Iterator[tuple[bytes, list[str]]]:
    at = 0
    while at + 4 <= len(table):
        kind, length = table[at], table[at + 1]
        if length < 4:
            return
        end = table.index(b"\0\0", at + length)
        if kind == _TYPE:
            yield table[at : at + length], [text.decode("latin-1").strip() for text in table[at + length : end].split(b"\0")]
        at = end + 2


def _dimm(body: bytes, strings: list[str]) -> Dimm | None:
    nbytes = _size(body)
    if not nbytes:
        return None
    ranks = body[_RANKS_AT] & 0x0F if len(body) > _RANKS_AT else 0
    return Dimm(
        _string(body, _LOCATOR_AT, strings) or "?", nbytes, _KINDS.get(body[_KIND_AT]), _rate(body, _SPEED_AT), _rate(body, _SET_SPEED_AT),
        ranks or None, _string(body, _PART_AT, strings),
    )  # fmt: skip


def _size(body: bytes) -> int:
    size = struct.unpack_from("<H", body, _SIZE_AT)[0]
    if size == _LONG_SIZE:
        return int(struct.unpack_from("<I", body, _LONG_SIZE_AT)[0]) * _MIB
    # Bit 15: in KiB.
    return 0 if size == _UNKNOWN else int(size & 0x7FFF) * (1024 if size & 0x8000 else _MIB)


def _rate(body: bytes, at: int) -> float | None:
    if len(body) < at + 2:
        return None
    rate = struct.unpack_from("<H", body, at)[0]
    return None if rate in {0, _UNKNOWN} else rate * 1e6


def _string(body: bytes, at: int, strings: list[str]) -> str | None:
    number = body[at] if len(body) > at else 0
    return strings[number - 1] or None if 0 < number <= len(strings) else None
