"""Why a clock was not switched, or a switched clock's measurement does not count.

ClockError
├── NotSwitchableError  this board, driver or clock does not allow it; the predicted sweep does
│   └── DeferredError   it does, but only as the driver loads: a plan can be made
├── NoPermissionError   this user may not
├── BusyError           the GPU is in use, by a program or by another session
├── LeftOverError       an earlier session's change is not undone yet
├── NotVerifiedError    the driver's answer and its clock differ
├── ThrottledError      heat or the power brake held the GPU back while it was measured
├── NotRestoredError    a clock may still be changed: the journal stays
└── GpuLostError        the driver lost the GPU
"""

from __future__ import annotations

from membound.errors import MemboundError


class ClockError(MemboundError):
    """Base of all that can go wrong with switching clocks."""


class NotSwitchableError(ClockError):
    """The board, the driver or the asked-for clock does not allow it."""


class DeferredError(NotSwitchableError):
    """The driver switches this clock only while it loads."""


class NoPermissionError(ClockError):
    """The driver does not let this user switch clocks."""

    def __init__(self, what: str) -> None:
        # A driver asks for the capability, not for user id 0: root in an unprivileged container is refused as well.
        super().__init__(f"{what}: this user may not switch clocks (it takes CAP_SYS_ADMIN on the host, which most containers and clouds withhold)")


class BusyError(ClockError):
    """The GPU is in use."""


class LeftOverError(ClockError):
    """An earlier session's change is not undone yet."""


class NotVerifiedError(ClockError):
    """The clock that the driver reports is not the one that it was asked for."""


class ThrottledError(ClockError):
    """Heat or the power brake held the GPU back."""


class NotRestoredError(ClockError):
    """A clock may still be changed."""


class GpuLostError(ClockError):
    """The driver lost the GPU."""

    def __init__(self, uuid: str) -> None:
        super().__init__(f"{uuid}: the driver lost this GPU: reboot, then `membound restore`")
