"""The runner: pause and cancel are told at once while it loads, and its work gives way."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass

import pytest

from qwidgets.gate import pass_gate
from qwidgets.widgets.runner import Job, Latest, Runner


@dataclass(frozen=True)
class Done:
    fraction: float


class Loading:
    """A job that loads until it is let on, and then does `units` of work."""

    def __init__(self, units=3):
        self.begun, self.let = threading.Event(), threading.Event()
        self.units, self.shown = units, []
        self.told = []
        self.news = threading.Condition()
        job = Job(
            phase="training",
            start=self.start,
            show=self.shown.append,
            place=lambda _: "epoch 1",
            title=lambda _: "Epoch 1",
            kept=lambda: "",
            done=lambda: "Trained",
        )
        self.runner = Runner(job, self.tell)

    def start(self):
        self.begun.set()
        assert self.let.wait(30)
        pass_gate()
        for unit in range(self.units):
            yield Done((unit + 1) / self.units)

    def tell(self, phase, _fraction, message):
        with self.news:
            self.told.append((phase, message))
            self.news.notify_all()

    def wait(self, phase):
        with self.news:
            assert self.news.wait_for(lambda: self.told[-1:] and self.told[-1][0] == phase, 30)

    @property
    def phases(self):
        return [phase for phase, _ in self.told]


@pytest.fixture
def loading():
    made = Loading()
    made.runner.start()
    assert made.begun.wait(30)
    yield made
    made.let.set()
    made.runner.resume()
    assert made.runner.join(30)


def test_a_pause_is_told_while_it_loads_and_holds_the_work_after_it(loading):
    loading.runner.pause()
    assert loading.told[-1] == ("paused", "Paused in the preparation")
    assert loading.runner.busy
    loading.let.set()
    # It comes to the gate, and no further.
    assert not loading.runner.join(0.3)
    assert loading.shown == []
    assert loading.phases[-1] == "paused"
    loading.runner.resume()
    loading.wait("done")
    assert len(loading.shown) == 3


def test_a_pause_is_taken_back_while_it_loads(loading):
    loading.runner.pause()
    loading.runner.resume()
    assert loading.phases[-2:] == ["paused", "preparing"]
    loading.let.set()
    loading.wait("done")


def test_a_cancel_is_told_while_it_loads_and_nothing_after_it(loading):
    loading.runner.cancel()
    assert loading.told[-1] == ("cancelled", "Cancelled in the preparation")
    # Something else may begin meanwhile.
    assert not loading.runner.busy
    told = list(loading.told)
    loading.let.set()
    assert loading.runner.join(30)
    assert loading.shown == []
    assert loading.told == told


def test_a_paused_loading_is_cancelled(loading):
    loading.runner.pause()
    loading.runner.cancel()
    assert loading.phases[-2:] == ["paused", "cancelled"]
    loading.let.set()
    assert loading.runner.join(30)
    assert loading.phases[-1] == "cancelled"


@pytest.mark.parametrize("end", ["done", "failed"])
def test_the_next_run_may_begin_at_the_last_word_of_this_one(end):
    told, runners = [], []

    def work():
        yield Done(0.5)
        if end == "failed":
            message = "no more"
            raise ValueError(message)

    said = {name: lambda *_: "" for name in ("place", "title", "kept", "done")}
    job = Job(phase="training", start=work, show=lambda _: None, **said)

    def tell(which, phase):
        told.append((which, phase))
        if phase == end and which == 0:
            assert not runners[0].busy
            begin(1, after=runners[0])
            # What comes after this word belongs to the next run; give it time to be early.
            time.sleep(0.2)
            told.append((which, "over"))

    def begin(which, after=None):
        runner = Runner(job, lambda phase, *_: tell(which, phase), after=after)
        runners.append(runner)
        assert runner.busy
        runner.start()

    begin(0)
    assert runners[0].join(30)
    assert runners[1].join(30)
    words = ["preparing", "training", end]
    assert told == [
        *((0, word) for word in words),
        (0, "over"),
        *((1, word) for word in words),
    ]
    assert not runners[1].busy


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
def test_long_work_goes_after_an_answer_and_an_answer_after_the_notebook():
    ranks = {}

    def rank():
        tid = threading.get_native_id()
        idle = os.sched_getscheduler(tid) == os.SCHED_IDLE
        return idle, os.getpriority(os.PRIO_PROCESS, tid)

    def train():
        ranks["training"] = rank()
        yield Done(1.0)

    def answer(_):
        ranks["answer"] = rank()
        yield

    said = {name: lambda *_: "" for name in ("place", "title", "kept", "done")}
    job = Job(phase="training", start=train, show=lambda _: None, **said)
    runner = Runner(job, lambda *_: None)
    runner.start()
    latest = Latest(answer, lambda *_: None)
    latest.ask(0)
    assert runner.join(30)
    assert latest.wait(30)
    assert ranks["training"] > ranks["answer"] > rank()
