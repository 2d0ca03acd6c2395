"""A gate that long work passes often: the only way to hold or stop it in the middle of a step.

An iterator can be paused and closed between its items. One item, a minibatch of a large network
say, may take longer than a person wants to wait. So networks pass the gate before they are
evaluated, and whoever runs the work may have set a check there (`gated`), which may wait, or raise
`Stopped`. Without one, passing is free. The check belongs to the context (the thread) of the work:
nothing is global. No number depends on it.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Stopped(BaseException):
    """Raised by a check to end the work; no `Exception`, so that no handler of errors takes it."""


def _open() -> None:
    """Let everything pass."""


_check: ContextVar[Callable[[], None]] = ContextVar("check", default=_open)


def pass_gate() -> None:
    """Call the check of this context, if there is one."""
    _check.get()()


def is_gated() -> bool:
    """Whether this context has a check: without one, nothing need lead by the gate."""
    return _check.get() is not _open


def current_check() -> Callable[[], None]:
    """Return the check of this context, for a thread that helps with its work."""
    return _check.get()


def set_check(check: Callable[[], None]) -> None:
    """Set the check of this thread for good; for the threads of a pool, which end with the work."""
    _check.set(check)


@contextmanager
def gated(check: Callable[[], None]) -> Iterator[None]:
    """Set the check of this context for a while.

    Parameters
    ----------
    check : callable
        Called often: cheap unless it waits. It may raise `Stopped`.
    """
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)
