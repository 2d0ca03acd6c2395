"""Sweeps on executors: the cube of a local run, whatever happens to the workers."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing

import numpy as np
import psutil
import pytest
import torch
import xarray as xr
from torch import nn

import qwidgets as qw
from qwidgets import batches
from qwidgets.plan import Arguments, planned
from qwidgets.sweep import one_core_spared

SMALL = {
    "epsilon": [0, 0.1],
    "regularization": [0, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10],
    "epochs": 3,
    "train_size": 300,
    "test_size": 60,
    "probe_images": 3,
}
BATCHES = 3
NUMBERS = SMALL | {"data": "friedman", "epochs": 2}


@pytest.fixture(scope="module")
def local():
    return qw.sweep(**SMALL, progress=False)


def assert_same(one, other):
    xr.testing.assert_identical(one.dataset, other.dataset)
    for variable in one.dataset.variables:
        a, b = one.dataset[variable].values, other.dataset[variable].values
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
    for name, value in one._parameters.items():
        assert torch.equal(value, other._parameters[name])


def started(executor, **settings):
    """An iterator whose first epoch of the whole grid is finished."""
    states = qw.iterate_sweep(**SMALL | settings, executor=executor)
    for state in states:
        if state.sweep is not None:
            return states
    pytest.fail("no epoch was finished")


def last(states):
    return [state.sweep for state in states if state.sweep is not None][-1]


# The same cube


@pytest.mark.parametrize("columns", [5, 7])
def test_networks_that_do_not_fill_rows_or_minibatches_are_the_same_together(columns):
    """The attacked ones of a batch begin elsewhere in it than among all."""
    strengths = SMALL["regularization"][:columns]
    asked = SMALL | {"epsilon": [0, 0.1, 0.2], "regularization": strengths, "train_size": 283}
    with ThreadPoolExecutor(1) as executor:
        remote = qw.sweep(**asked, executor=executor, progress=False)
    assert_same(remote, qw.sweep(**asked, progress=False))


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_cube_is_that_of_a_local_run(local, kind, workers):
    with kind(workers) as executor:
        assert_same(qw.sweep(**SMALL, executor=executor, progress=False), local)


def odd():
    return nn.Sequential(nn.Flatten(-3), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 10))


def test_odd_sides_give_the_same_cube_in_batches_of_a_worker_and_here():
    asked = SMALL | {"model": odd}
    assert planned(Arguments(**asked)).work.abreast == 8
    with ThreadPoolExecutor(2) as executor:
        remote = qw.sweep(**asked, executor=executor, progress=False)
    assert_same(remote, qw.sweep(**asked, progress=False))


def wide():
    return nn.Sequential(nn.Flatten(-3), nn.Linear(64, 8192), nn.ReLU(), nn.Linear(8192, 10))


def test_large_networks_take_no_more_memory_than_a_batch_of_them():
    work = planned(Arguments(**SMALL | {"model": wide})).work
    assert work.abreast == 8  # of 614 410 weights each


def test_an_epoch_is_the_same_from_a_checkpoint_as_in_one_go(local):
    work = planned(Arguments(**SMALL)).work
    assert [(part.start, part.stop) for part in work.batches] == [(0, 8), (8, 16), (16, 18)]
    assert work.abreast == 18
    reached = [None] * BATCHES
    rest = {}
    with one_core_spared():
        for unit in batches.run_here(work, reached):
            for point in unit.checkpoints if unit.epoch == 1 else ():
                reached[point.batch] = point
            if None not in reached:
                break
        for unit in batches.run_here(work, reached):
            assert unit.epoch > 1
            rest |= {(unit.epoch, point.batch): point for point in unit.checkpoints}
    for name, value in local._parameters.items():
        again = torch.cat([rest[3, batch].trained.parameters[name] for batch in range(BATCHES)])
        assert torch.equal(again, value)


def test_progress_is_shown_as_it_comes(local):
    with ThreadPoolExecutor(2) as executor:
        states = list(qw.iterate_sweep(**SMALL, executor=executor))
    fractions = [state.fraction for state in states]
    assert (np.diff(fractions) >= 0).all()
    assert fractions[-1] == 1
    finished = [state for state in states if state.sweep is not None]
    assert [state.epoch for state in finished] == [0, 1, 2, 3]
    for state in finished:
        kept = local.dataset.isel(epoch=slice(0, state.epoch + 1))
        xr.testing.assert_equal(
            state.sweep.dataset.drop_vars(["diverged", "diverged_reason"]),
            kept.drop_vars(["diverged", "diverged_reason"]),
        )


def test_a_model_of_ones_own_travels(local):
    width = 8

    def factory():
        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 10))

            def forward(self, x):
                return self.layers(x.flatten(-3))

        return Network()

    settings = SMALL | {"epochs": 1, "epsilon": [0.1], "model": factory}
    with ProcessPoolExecutor(1) as executor:
        result = qw.sweep(**settings, executor=executor, progress=False)
    assert_same(result, qw.sweep(**settings, progress=False))
    assert result.dataset.attrs["strategy"] != local.dataset.attrs["strategy"]


# Workers that are lost


class OneProcessEach(Executor):
    """Every job has a process of its own, so that losing one harms no other.

    Of the jobs that carry the work, those of the numbers in `killed` lose their process.
    """

    def __init__(self, killed=()):
        self.killed = set(killed)
        self.jobs = []

    def submit(self, fn, job):
        pool = ProcessPoolExecutor(1)
        future = pool.submit(fn, job)
        future.add_done_callback(lambda _: pool.shutdown(wait=False))
        carrying = sum(job.payload is not None for job in self.jobs)
        self.jobs.append(job)
        if job.payload is not None and carrying in self.killed:
            os.kill(next(iter(pool._processes)), signal.SIGKILL)
        return future


def test_a_lost_job_is_done_again_and_no_other(local):
    executor = OneProcessEach(killed={1, 8, 9})
    assert_same(qw.sweep(**SMALL, executor=executor, progress=False), local)
    assert sum(job.attempt > 0 for job in executor.jobs) == 3
    # A process of its own knows no work of earlier ones, and asks for it.
    carrying = [job for job in executor.jobs if job.payload is not None]
    assert len(carrying) == BATCHES * (1 + SMALL["epochs"]) + 3


def test_a_lost_job_of_a_regression_is_done_again():
    executor = OneProcessEach(killed={1, 4})
    expected = qw.sweep(**NUMBERS, progress=False)
    assert_same(qw.sweep(**NUMBERS, executor=executor, progress=False), expected)
    assert sum(job.attempt > 0 for job in executor.jobs) == 2


def test_a_job_that_is_always_lost_is_given_up():
    executor = OneProcessEach(killed=range(100))
    with pytest.raises(RuntimeError, match=r"lost epoch 0 of networks \d+ to \d+ 3 times; give"):
        qw.sweep(**SMALL, executor=executor, progress=False)


# Python's own fault (its issue 94777), shown by a dozen lines without us: not so with 3.11.7.
@pytest.mark.skipif(sys.version_info < (3, 11, 7), reason="the pool itself may wait for ever")
def test_a_broken_pool_is_told_and_the_store_goes_on_with_a_new_one(local, tmp_path):
    store = tmp_path / "store"
    with ProcessPoolExecutor(2) as executor:
        states = started(executor, store=store)
        os.kill(next(iter(executor._processes)), signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"executor must take work .*call again with a new"):
            list(states)
    done = int(qw.open_sweep(store).dataset.epoch[-1])
    assert done < 3
    with ProcessPoolExecutor(2) as executor:
        states = qw.iterate_sweep(**SMALL, executor=executor, store=store)
        first = next(states)
        assert int(first.sweep.dataset.epoch[-1]) == done
        assert_same(last(states), local)
    assert_same(qw.open_sweep(store), local)


class Failing(nn.Sequential):
    """Fails in any other process than the one that made it."""

    def __init__(self, *layers):
        super().__init__(*layers)
        self.home = os.getpid()

    def forward(self, x):
        if os.getpid() != self.home:
            message = "out of paper"
            raise ValueError(message)
        return super().forward(x)


def test_what_a_job_raises_is_raised_once_and_says_where():
    with ProcessPoolExecutor(1) as executor:
        with pytest.raises(ValueError, match="out of paper") as caught:
            qw.sweep(
                **SMALL,
                model=lambda: Failing(nn.Flatten(-3), nn.Linear(64, 10)),
                executor=executor,
                progress=False,
            )
        assert "On a worker" in caught.value.__notes__[0]
        assert executor.submit(int, "3").result() == 3  # the pool is as it was


class Unsendable:
    """What can be copied here, and not sent elsewhere."""

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        message = "it holds a lock"
        raise TypeError(message)


def test_a_model_that_cannot_be_sent_is_refused():
    def factory():
        network = nn.Sequential(nn.Flatten(-3), nn.Linear(64, 10))
        vars(network)["part"] = Unsendable()
        return network

    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(TypeError, match=r"sent to a worker, but: .*lock.*leave out executor"),
    ):
        qw.sweep(**SMALL, model=factory, executor=executor, progress=False)


def test_what_is_no_executor_is_refused():
    with pytest.raises(TypeError, match=r"got int; of a dask Client take client.get_executor"):
        qw.iterate_sweep(executor=2)


def test_an_executor_that_is_shut_down_is_told():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match=r"executor must take work .*after shutdown; call again"):
        qw.sweep(**SMALL, executor=executor, progress=False)


# Cancelling


class Slow(Executor):
    """Jobs that never start."""

    def __init__(self):
        self.futures = []

    def submit(self, *_):
        self.futures.append(Future())
        return self.futures[-1]


def test_cancelling_takes_back_what_has_not_started():
    executor = Slow()
    with closing(qw.iterate_sweep(**SMALL, executor=executor)) as states:
        # It can be cancelled while nothing happens.
        assert [next(states).fraction for _ in range(3)] == [0, 0, 0]
    assert len(executor.futures) == BATCHES
    assert all(future.cancelled() for future in executor.futures)


def test_an_interrupted_sweep_keeps_the_finished_epochs(local):
    seen = []

    class Interrupting(ThreadPoolExecutor):
        def submit(self, *job):
            seen.append(None)
            if len(seen) == 8:
                raise KeyboardInterrupt
            return super().submit(*job)

    with (
        Interrupting(1) as executor,
        pytest.warns(UserWarning, match=r"interrupted after epoch \d of 3"),
    ):
        result = qw.sweep(**SMALL, executor=executor, progress=False)
    kept = local.dataset.isel(epoch=slice(0, len(result.dataset.epoch)))
    xr.testing.assert_equal(
        result.dataset.drop_vars(["diverged", "diverged_reason"]),
        kept.drop_vars(["diverged", "diverged_reason"]),
    )


# A cluster


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_a_dask_cluster_gives_the_same_cube(local, client):
    result = qw.sweep(**SMALL, executor=client.get_executor(), progress=False)
    assert_same(result, local)


def test_a_dask_cluster_gives_the_same_cube_of_a_regression(client, tmp_path):
    executor = client.get_executor()
    result = qw.sweep(**NUMBERS, executor=executor, store=tmp_path / "store", progress=False)
    assert_same(result, qw.sweep(**NUMBERS, progress=False))
    assert_same(qw.open_sweep(tmp_path / "store"), result)


def test_a_dask_cluster_gives_the_same_cube_of_a_field(client):
    settings = {
        "data": "temperature",
        "model": "encoder_decoder",
        "epsilon": [0, 0.03],
        "regularization": [0, 0.01, 0.03, 0.1, 0.3],  # of two batches
        "epochs": 1,
        "attack_epsilon": [0, 0.03],
        "train_size": 64,
        "test_size": 15,
        "probe_images": 1,
        "detail": None,
    }
    result = qw.sweep(**settings, executor=client.get_executor(), progress=False)
    assert result.data.task.unit == "K"
    assert_same(result, qw.sweep(**settings, progress=False))


def test_a_loss_of_ones_own_travels_to_a_dask_cluster(client):
    power = 1.5
    x = np.random.default_rng(0).random((150, 4))
    data = qw.Dataset.for_regression(
        x, x.sum(1), loss=lambda outputs, targets: ((outputs - targets).abs() ** power).sum(-1)
    )
    settings = {"data": data, "epsilon": [0, 0.1], "regularization": [0, 0.1], "epochs": 2}
    result = qw.sweep(**settings, executor=client.get_executor(), progress=False)
    assert_same(result, qw.sweep(**settings, progress=False))


def test_a_dask_worker_that_is_killed_costs_only_its_epoch(local, client, tmp_path):
    before = set(client.run(os.getpid).values())
    assert len(before) == 2
    states = started(client.get_executor(), seed=0, store=tmp_path / "store")
    victim = psutil.Process(min(before))
    working = victim.cpu_times().user
    while victim.cpu_times().user == working:  # it is in the middle of something
        next(states)
    victim.kill()
    assert_same(last(states), local)
    assert_same(qw.open_sweep(tmp_path / "store"), local)
    client.wait_for_workers(2)
    assert len(set(client.run(os.getpid).values()) & before) == 1
