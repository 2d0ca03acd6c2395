"""Runs long work on a worker thread, and the newest of many small requests on another."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextlib import AbstractContextManager

Phase = Literal[
    "empty",
    "preparing",
    "training",
    "refining",
    "measuring",
    "paused",
    "done",
    "cancelled",
    "failed",
]

# Reports a second; more cannot be seen and would crowd the link to the browser.
_RATE = 15.0
# What answers a move (the attack lens) goes before the training, and after the next move's redraw.
_NICENESS_OF_ANSWERS = 10
# At the end of Python, for work to notice that it is cancelled.
_LAST_SECONDS = 10.0


class Step(Protocol):
    """What an iterator of long work yields after every unit."""

    @property
    def fraction(self) -> float:
        """Share of all work that is done."""


S = TypeVar("S", bound=Step)


@dataclass(frozen=True, kw_only=True)
class Job(Generic[S]):
    """Long work for a `Runner`, and how to speak of it.

    Attributes
    ----------
    phase : Phase
        What the run is in while it works.
    start : callable
        Returns the iterator. Called on the worker thread, so that what it imports does not hold up
        the notebook.
    show : callable
        Takes every step, on the worker thread.
    place : callable
        Says where a step is: "epoch 3".
    title : callable
        Says what a step does: "Epoch 3 of 20".
    kept : callable
        What is told after a cancel, of what stays: "; epochs 0 to 3 are kept", or nothing.
    done : callable
        Says what has been done: "Trained 20 epochs".
    """

    phase: Phase
    start: Callable[[], Generator[S]]
    show: Callable[[S], None]
    place: Callable[[S], str]
    title: Callable[[S], str]
    kept: Callable[[], str]
    done: Callable[[], str]


# Those whose threads may still work when Python ends.
_started: weakref.WeakSet[Runner] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Cancel all work: PyTorch aborts the process if Python ends in the middle of it."""
    for runner in list(_started):
        runner.cancel()
    for runner in list(_started):
        runner.join(_LAST_SECONDS)


class Runner:
    """One run of a job on a thread of its own, which can be paused and cancelled.

    It is held or stopped at the next evaluation of a network, also in the middle of a unit of work
    (`qwidgets.gate`). Before the first one PyTorch and the data are loaded, which nobody can hold
    up: a pause or a cancel is told at once then, and takes effect where that ends.

    Parameters
    ----------
    job : Job
        What to do.
    report : callable
        Takes phase, fraction and a message; called on the worker thread, one call at a time.
    here : bool
        Whether the work will be done by `work_here`, and not on a thread of its own.
    begin : callable
        Called first on the thread, before anything is loaded; it may wait.
    after : Runner, optional
        The run before this one, whose last word is to come before the first one of this.
    """

    def __init__(
        self,
        job: Job[Any],
        report: Callable[[Phase, float, str], None],
        *,
        here: bool = False,
        begin: Callable[[], object] = lambda: None,
        after: Runner | None = None,
    ) -> None:
        self._job = job
        self._report = report
        self._begin = begin
        self._after = after
        self._go = threading.Event()
        self._go.set()
        self._cancelled = threading.Event()
        # Set unless the work is, or is to be, done on a thread that is not its own.
        self._left = threading.Event()
        if not here:
            self._left.set()
        # Held while the run is: of several threads at the gate, one tells of it.
        self._holding = threading.Lock()
        self._held = 0.0
        # Held while something is told: also the threads that pause and cancel do.
        self._telling = threading.RLock()
        self._loading = True
        self._phase: Phase = "preparing"
        self._given_up = False
        # Set before the last word of a thread of its own: whoever reads it may start the next run
        # at once.
        self._over = False
        self._fraction = 0.0
        self._place = "the preparation"
        self._message = "Preparing: loading PyTorch and the data"
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="qwidgets-training", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        _started.add(self)
        self._thread.start()

    @property
    def job(self) -> Job[Any]:
        """What is done."""
        return self._job

    def work_here(self) -> None:
        """Do the work on the calling thread; an interrupt cancels it, as `cancel` does."""
        try:
            # Without giving way: this thread goes on with other work, and could not take it back.
            self._run(nullcontext())
        finally:
            self._left.set()

    def pause(self) -> None:
        """Hold the work at the next evaluation of a network."""
        self._go.clear()
        with self._telling:
            if self._loading and self.busy:
                self._tell("paused", f"Paused in {self._place}")

    def resume(self) -> None:
        """Go on after `pause`."""
        self._go.set()
        with self._telling:
            if self._loading and self.busy:
                self._tell("preparing", self._message)

    def cancel(self) -> None:
        """End the run at the next evaluation of a network; what is finished stays."""
        self._cancelled.set()
        self._go.set()
        with self._telling:
            if self._loading and self.busy:
                self._tell("cancelled", f"Cancelled in {self._place}")
                self._given_up = True

    @property
    def busy(self) -> bool:
        """Whether there is work, other than to load what a cancelled run does not need any more."""
        return not (self._given_up or self._over)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the run; False if it has not come within ``timeout`` seconds."""
        left = countdown(timeout)
        if self._thread.is_alive():
            self._thread.join(left())
        return not self._thread.is_alive() and self._left.wait(left())

    def _run(self, manner: AbstractContextManager[None] | None = None) -> None:
        after, self._after = self._after, None
        if after is not None and not after._given_up:  # noqa: SLF001 - of the same class
            after.join()
        try:
            with self._telling:
                if self._go.is_set():
                    self._tell("preparing", self._message)
            self._begin()
            with manner or giving_way():
                self._stopped_or_done()
        except KeyboardInterrupt:
            self._end("cancelled", f"Interrupted in {self._place}{self._job.kept()}")
        except Exception as error:  # noqa: BLE001 - shown in the widget and raised again by wait()
            self.error = error
            self._fraction = 0.0
            self._end("failed", f"{type(error).__name__}: {error}")
        finally:
            self._over = True

    def _end(self, phase: Phase, message: str) -> None:
        self._over = self._left.is_set()
        self._tell(phase, message)

    def _tell(self, phase: Phase, message: str) -> None:
        with self._telling:
            if not self._given_up:
                self._report(phase, self._fraction, message)

    def _stopped_or_done(self) -> None:
        from qwidgets.gate import Stopped, gated

        try:
            with gated(self._at_the_gate):
                self._work()
        except Stopped:
            self._end("cancelled", f"Cancelled in {self._place}{self._job.kept()}")

    def _work(self) -> None:
        job, last_report = self._job, 0.0
        begun = time.monotonic()
        self._check()
        with closing(job.start()) as steps:
            for step in steps:
                self._phase, self._fraction = job.phase, step.fraction
                self._place = job.place(step)
                self._at_the_gate()
                job.show(step)
                now = time.monotonic()
                working = now - begun - self._held
                left = working * (1 - step.fraction) / max(step.fraction, 1e-3)
                told = (
                    f" · {_duration(working)} so far, {_duration(left)} left" if working > 1 else ""
                )
                self._message = f"{job.title(step)}{told}"
                self._check()
                if now - last_report >= 1 / _RATE:
                    last_report = now
                    self._tell(job.phase, self._message)
        working = time.monotonic() - begun - self._held
        self._fraction = 1.0
        self._end("done", f"{job.done()} in {_duration(working)}")

    def _at_the_gate(self) -> None:
        self._loading = False
        self._check()

    def _check(self) -> None:
        """Wait while the run is paused; raise where it is cancelled."""
        if not self._go.is_set():
            with self._holding:
                if not self._go.is_set():
                    began = time.monotonic()
                    self._tell("paused", f"Paused in {self._place}")
                    self._go.wait()
                    self._held += time.monotonic() - began
                    if not self._cancelled.is_set():
                        self._tell(self._phase, self._message)
        if self._cancelled.is_set():
            from qwidgets.gate import Stopped

            raise Stopped


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def giving_way() -> Iterator[None]:
    """Let the browser and the notebook go first on the cores that they share with this thread.

    One core is spared. The thread and those that PyTorch starts from it only get what time is left
    over, and keep to that: an unprivileged thread cannot raise its priority again. Linux alone has
    a priority for each thread. It counts a core with nothing but such work as free, and wakes the
    browser's threads there; behind work of merely low priority they would queue on the other cores,
    for milliseconds. The price: where other programs take all of every core, training stands still.
    """
    from qwidgets.sweep import one_core_spared  # loads PyTorch

    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
    with one_core_spared():
        yield


R = TypeVar("R")


def countdown(timeout: float | None) -> Callable[[], float | None]:
    """Return a function that says how much of a time is left, in seconds; None if it has no end."""
    end = None if timeout is None else time.monotonic() + timeout
    return lambda: None if end is None else max(0.0, end - time.monotonic())


class Latest(Generic[R]):
    """Works on the newest request; an older one is dropped in the middle.

    The thread lives only while there is work, and gives way to the browser, which may be drawing
    the next move already. Without ``background`` the caller's thread does it.

    Parameters
    ----------
    work : callable
        Does a request in small steps, on the worker thread.
    failed : callable
        Takes the request and what the work raised.
    """

    def __init__(
        self,
        work: Callable[[R], Generator[None]],
        failed: Callable[[R, Exception], None],
        *,
        background: bool = True,
    ) -> None:
        self._work = work
        self._failed = failed
        self._background = background
        self._wanted: list[R] = []  # one place
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def ask(self, request: R) -> None:
        """Put a request in the place of one that is still waiting or being worked on."""
        with self._changed:
            if self._closed:
                return
            self._wanted = [request]
            if self._thread is not None:
                return
            if self._background:
                self._thread = threading.Thread(
                    target=self._run_after_others, name="qwidgets-answers", daemon=True
                )
                self._thread.start()
                return
            self._thread = threading.current_thread()
        try:
            self._run()
        finally:
            # Also after an interrupt, which leaves nothing under way.
            with self._changed:
                self._thread = None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; False if it takes longer than ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, timeout)

    def close(self) -> None:
        """Drop everything, and take no more."""
        with self._changed:
            self._closed = True
            self._wanted = []

    def _run_after_others(self) -> None:
        if sys.platform == "linux":
            with suppress(OSError):
                # Beside that of the kernel, which may have been started with one.
                me = os.PRIO_PROCESS, threading.get_native_id()
                os.setpriority(*me, os.getpriority(*me) + _NICENESS_OF_ANSWERS)
        self._run()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._wanted:
                    self._thread = None
                    self._changed.notify_all()
                    return
                request = self._wanted.pop()
            try:
                with closing(self._work(request)) as steps:
                    for _ in steps:
                        if self._wanted or self._closed:
                            break
            except Exception as error:  # noqa: BLE001 - shown in the widget
                self._failed(request, error)
