"""Every way membound refuses or fails, as one tree.

    MemboundError
    ├── InputError            what was asked for cannot be understood or combined: field, value, cure
    │   ├── UnknownNameError  a name that is in no catalogue; carries the nearest known names
    │   └── UnitError         a text that is no quantity of the wanted unit
    ├── CaptureError          the training program failed, or outgrew its limits, on the ghost GPU
    ├── MeasureError          what was to be measured could not be run or sampled
    ├── MissingPackageError   the Job needs a package that is not installed; says which extra brings it
    ├── RecordError           a Trace or a Run on disk is damaged, foreign, or of another schema
    ├── StorageError          the disk refused: read-only, full, not permitted
    └── UnlikeError           two things were to be compared that differ in a named field

The command line catches `MemboundError` once and prints `str(error)`: one line, exit status 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MemboundError(Exception):
    """Base of all errors that a user can cause or cure. Its text is one line."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class InputError(MemboundError):
    """The asked-for thing is not understood: `field` holds `value`; `cure` says what to write instead."""

    def __init__(self, field: str, value: object, cure: str) -> None:
        self.field = field
        self.value = value
        self.cure = cure
        super().__init__(f"{field}: {_short(value)}: {cure}")


class UnknownNameError(InputError):
    """`value` is in no catalogue; the nearest of the `known` names are offered."""

    def __init__(self, field: str, value: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(value, names, n=3, cutoff=0.5)
        cure = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
        super().__init__(field, value, cure)


class UnitError(InputError):
    """A text is not a quantity of the wanted unit."""


class CaptureError(MemboundError):
    """The training program failed, or outgrew its limits, on the ghost GPU."""


class MeasureError(MemboundError):
    """What was to be measured could not be run or sampled."""


class MissingPackageError(MemboundError):
    """The Job needs `package`, which is not installed."""

    def __init__(self, package: str, why: str, extra: str) -> None:
        self.package = package
        super().__init__(f"{why} needs the package {package}: pip install 'membound[{extra}]'")


class RecordError(MemboundError):
    """A Trace or a Run on disk is damaged, foreign, or of another schema."""


class StorageError(MemboundError):
    """The disk refused to hold what was to be written."""


class UnlikeError(MemboundError):
    """Two things were to be compared that differ in a named field."""


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
