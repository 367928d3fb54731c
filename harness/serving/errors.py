"""Errors of requests to served models. Their texts never hold a key."""

from __future__ import annotations

from harness.support import HarnessError


class ServedError(HarnessError):
    """A served model could not be asked, or its answer cannot be used; the message says what to try."""


class LimitReachedError(ServedError):
    """The next request might go beyond the limit of money or tokens."""


class RejectedError(ServedError):
    """The server refuses a request, and would refuse it again.

    Attributes:
        status: status of the answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class TooLongError(RejectedError):
    """The request does not fit into the model's context."""


class UnavailableError(ServedError):
    """The server did not answer in time, in all tries."""


class StoppedError(ServedError):
    """Another request of the same cell has failed, and this one was not sent."""
