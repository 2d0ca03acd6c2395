"""Work on one thread, and several pieces of such work side by side.

What is computed on one thread is added up in one order: the numbers are the same bit for bit
whatever the machine, and however many other pieces of work are done beside it.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from threading import Barrier
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

from qwidgets.gate import current_check, set_check

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")

# Seconds in which all threads must have started: a system that refuses one must not leave the
# others waiting.
_STARTED = 60


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread, for the calling thread's work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def side_by_side(
    works: Iterable[Generator[None, None, T]], workers: int
) -> Generator[int, None, list[T]]:
    """Do pieces of work, several at a time with a thread for each, and each on one thread.

    All that are under way do one unit each before the next item is given: not taking it pauses all
    of them, closing stops them.

    Parameters
    ----------
    works : iterable of generators
        Each yields before every unit of its work, and returns what it came to. What two of them
        change, they must not share.
    workers : int
        How many at a time, at least 1.

    Yields
    ------
    int
        How many units have been done in all.

    Returns
    -------
    list
        What the works returned, in their order.
    """
    waiting = iter(enumerate(works))
    running: dict[int, Generator[None, None, T]] = {}
    results: dict[int, T] = {}
    done = 0
    # Alone as on a thread of its own.
    unit = _unit if workers > 1 else one_thread()(_unit)
    with threads(workers) as run:
        while True:
            for place, work in islice(waiting, workers - len(running)):
                next(work)
                running[place] = work
            if not running:
                return [results[place] for place in range(len(results))]
            outcomes: list[tuple[T] | None] = run(unit, running.values())
            for place, ended in zip(list(running), outcomes, strict=True):
                if ended is not None:
                    results[place] = ended[0]
                    del running[place]
                done += 1
            yield done


def mapped(steps: Generator[A, None, T], function: Callable[[A], B]) -> Generator[B, None, T]:
    """Yield a function of what each step of the work yields; return what the work returns."""
    while True:
        try:
            step = next(steps)
        except StopIteration as ended:
            return cast("T", ended.value)
        yield function(step)


def in_turn(
    works: Iterable[Generator[float, None, T]], count: int
) -> Generator[float, None, list[T]]:
    """Do so many pieces of work one after the other, each of which yields its share that is done.

    Yields the share of all of them, and returns a list of what they return.
    """
    results = []
    for place, work in enumerate(works):
        results.append((yield from mapped(work, partial(_share, place, count))))
    return results


def _share(place: int, count: int, share: float) -> float:
    return (place + share) / count


def _unit(work: Generator[None, None, T]) -> tuple[T] | None:
    """Do one unit; return what the work came to, if that was the last one."""
    try:
        next(work)
    except StopIteration as ended:
        return (ended.value,)
    return None


@contextmanager
def threads(workers: int) -> Iterator[Callable[..., list[Any]]]:
    """Start worker threads, each with PyTorch limited to one thread.

    With one worker the calling thread does the work, with its own setting.

    Parameters
    ----------
    workers : int
        How many, at least 1.

    Yields
    ------
    callable
        ``run(function, *values)``: what the function returns for each of some values, in their
        order, found on all threads. What it raises, ``run`` raises.
    """
    if workers == 1:
        yield lambda function, *values: list(map(function, *values))
        return
    every, check = torch.get_num_threads(), current_check()
    ready = Barrier(workers, timeout=_STARTED)

    def prepare() -> None:
        set_check(check)
        torch.set_num_threads(1)
        torch.get_num_threads()  # else the first computation of a thread asks the process
        ready.wait()

    with ThreadPoolExecutor(workers, initializer=prepare) as pool:
        # As many tasks start all threads. Each has set its own number of threads to 1, and with it,
        # as PyTorch does, that of the process, which is given back.
        deque(pool.map(int, range(workers)), maxlen=0)
        torch.set_num_threads(every)
        yield lambda function, *values: list(pool.map(function, *values))
