"""Work side by side: every number as on one thread, held and stopped as one."""

from __future__ import annotations

import threading
from contextlib import closing

import numpy as np
import pytest
import torch

import qwidgets as qw
from qwidgets import neighborhoods
from qwidgets.ensemble import batched_forward, stack_parameters
from qwidgets.gate import Stopped, gated, pass_gate
from qwidgets.measurement import measure
from qwidgets.neighborhoods import measure_neighborhoods
from qwidgets.plan import Arguments, planned
from qwidgets.threads import side_by_side


@pytest.fixture(autouse=True)
def three_threads():
    """More than there are cores, perhaps: the threads are there all the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def drained(units):
    seen = []
    while True:
        try:
            seen.append(next(units))
        except StopIteration as finished:
            return finished.value, seen


def counting(units, result, log):
    for unit in range(units):
        yield
        assert torch.get_num_threads() == 1
        log.append((result, unit, threading.get_ident()))
    return result


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_every_work_is_done_in_its_order_and_told_in_that_of_the_works(workers):
    lengths, log = [3, 1, 4, 1, 5, 9, 2], []
    works = (counting(units, index, log) for index, units in enumerate(lengths))
    results, seen = drained(side_by_side(works, workers))
    assert results == list(range(7))
    assert seen[-1] == sum(lengths)
    steps = np.diff([0, *seen])
    assert steps.max() == workers
    assert (steps >= 1).all()
    for index, units in enumerate(lengths):
        assert [unit for result, unit, _ in log if result == index] == list(range(units))
    here = {threading.get_ident()}
    assert ({ident for *_, ident in log} == here) == (workers == 1)


def test_nothing_goes_on_between_two_items_and_closing_stops():
    log, alive = [], threading.active_count()
    works = (counting(100, index, log) for index in range(4))
    with closing(side_by_side(works, 2)) as units:
        assert next(units) == 2
        assert len(log) == 2
        assert next(units) == 4
        assert len(log) == 4
    assert threading.active_count() == alive
    assert {result for result, *_ in log} == {0, 1}


def test_what_one_work_raises_is_raised_here():
    def failing():
        yield
        message = "out of ink"
        raise ValueError(message)

    units = side_by_side([counting(5, 0, []), failing()], 2)
    with pytest.raises(ValueError, match="out of ink"):
        next(units)


def test_all_threads_pass_the_gate_of_the_caller():
    passed = []

    def check():
        passed.append(threading.get_ident())
        if len(passed) > 5:
            raise Stopped

    def passing():
        while True:
            yield
            pass_gate()

    with gated(check), pytest.raises(Stopped):
        drained(side_by_side([passing(), passing()], 2))
    assert threading.get_ident() not in passed


@pytest.mark.parametrize("model", ["mlp", "conv", "attention"])
def test_measuring_gives_the_same_bits_on_any_number_of_threads(model, monkeypatch):
    # As with larger images: for these few numbers one thread is faster.
    monkeypatch.setattr(neighborhoods, "_WORTH_A_THREAD", 0)
    strengths = [0, 0.1, 0.2, 0.3, 0.4]
    work = planned(
        Arguments(
            model=model,
            epsilon=[0],
            regularization=strengths,
            train_size=100,
            test_size=50,
            probe_images=1,
            detail_samples=128,
        )
    ).work
    networks = [qw.build_model(model, work.data, seed=seed) for seed in range(len(strengths))]
    parameters = stack_parameters(networks)
    forward = batched_forward(work.network, work.data.input_shape)
    records, items = [], []
    for threads in (3, 1):
        torch.set_num_threads(threads)
        measured, shares = drained(measure(forward, parameters, work.probes))
        detail, more = drained(measure_neighborhoods(work.network, parameters, work.probes))
        assert shares == sorted(shares)
        assert shares[-1] == more[-1] == 1
        records.append(measured | detail)
        items.append(len(shares) + len(more))
    torch.set_num_threads(3)
    one, other = records
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].tobytes() == other[name].tobytes(), name
    # Networks are really measured side by side.
    assert items[0] < 0.5 * items[1]
