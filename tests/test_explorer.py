"""The Explorer without a browser: what it refuses, trains, keeps, and gives back."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch
from ipywidgets.widgets import widget as registry
from traitlets import TraitError

import qwidgets as qw
from qwidgets import views
from qwidgets.widgets.explorer import Explorer

TINY = {
    "epsilon": [0, 0.1],
    "regularization": [0, 0.3],
    "train_size": 128,
    "test_size": 60,
    "attack_steps": 1,
    "probe_images": 1,
}
# Never over before it is cancelled, and each epoch is quick.
ENDLESS = TINY | {"epochs": 100_000, "train_size": 64, "epsilon": [0], "regularization": [0]}


@pytest.fixture(scope="module")
def sweep():
    return qw.sweep(**TINY, epochs=2, progress=False)


@pytest.fixture
def make():
    made = []

    def make_(*arguments, **settings):
        made.append(Explorer(*arguments, **settings))
        return made[-1]

    yield make_
    for explorer in made:
        explorer.cancel()
        if explorer._runner is not None:
            assert explorer._runner.join(30)
        explorer.close()


class Milestones:
    """Wait for what a training shows, by its traits and not by the clock."""

    def __init__(self, explorer):
        self._explorer = explorer
        self._changed = threading.Condition()
        explorer.observe(self._wake, ["run", "cube"])

    def _wake(self, _change):
        with self._changed:
            self._changed.notify_all()

    def wait(self, reached, timeout=60):
        with self._changed:
            assert self._changed.wait_for(lambda: reached(self._explorer), timeout)


def finished(count):
    return lambda explorer: explorer.cube.get("finished", 0) >= count


def in_phase(*phases):
    return lambda explorer: explorer.run["phase"] in phases


def training_threads():
    return [thread for thread in threading.enumerate() if thread.name == "qwidgets-training"]


def assert_shows(cube, dataset):
    """The cube holds the epochs of the data set, and nothing else."""
    count = dataset.sizes["epoch"]
    assert cube["finished"] == count
    expected = views.plot_arrays(dataset)
    assert set(cube["values"]) == set(expected)
    for name, values in expected.items():
        wire = cube["values"][name]
        array = np.frombuffer(wire["data"], wire["dtype"]).reshape(wire["shape"])
        np.testing.assert_array_equal(array, values)


# A finished sweep


def test_a_finished_sweep_is_shown_whole_and_nothing_is_trained(make, sweep):
    explorer = make(sweep)
    assert explorer.sweep is sweep
    assert explorer.wait() is sweep
    assert_shows(explorer.cube, sweep.dataset)
    assert explorer.run == {"phase": "done", "fraction": 1.0, "message": "4 trained networks"}
    assert (explorer.epoch, explorer.label, explorer.epsilon) == (2, 0, 0.0)
    assert explorer.attack_epsilon == pytest.approx(0.1)
    assert training_threads() == []


def test_an_opened_sweep_is_shown_the_same(make, sweep, tmp_path):
    sweep.save(tmp_path / "tiny.sweep")
    explorer = make(qw.open_sweep(tmp_path / "tiny.sweep"))
    assert_shows(explorer.cube, sweep.dataset)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("epsilon", -0.01, r"epsilon must be on the trained grid, 0 to 0\.1; got -0\.01"),
        ("epsilon", 0.2, r"epsilon must be on the trained grid, 0 to 0\.1; got 0\.2"),
        ("epsilon", math.nan, "got nan"),
        ("epsilon", math.inf, "got inf"),
        ("regularization", 1.0, r"0 to 0\.3; got 1\.0"),
        ("attack_epsilon", 0.5, r"attack_epsilon must be .*; got 0\.5"),
        ("label", 10, "label must be from 0 to 9; got 10"),
        ("label", -1, "label must be from 0 to 9; got -1"),
        ("epoch", 3, "epoch must be from 0 to 2; got 3"),
        ("epoch", -1, "epoch must be from 0 to 2; got -1"),
        ("epsilon", "wide", "epsilon"),
        ("epoch", 1.5, "epoch"),
    ],
)
def test_choices_off_the_cube_are_refused_and_change_nothing(make, sweep, name, value, words):
    explorer = make(sweep)
    before = getattr(explorer, name)
    with pytest.raises(TraitError, match=words):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before


@pytest.mark.parametrize("value", [0.0, 0.05, 0.1])
def test_choices_on_the_cube_are_taken(make, sweep, value):
    explorer = make(sweep)
    explorer.epsilon = value
    assert explorer.epsilon == value


@pytest.mark.parametrize("name", ["cube", "run", "heading"])
def test_what_is_shown_cannot_be_overwritten(make, sweep, name):
    explorer = make(sweep)
    with pytest.raises(TraitError, match="read-only"):
        setattr(explorer, name, {})


@pytest.mark.parametrize("given", [{"cube": 1}, "digits.sweep", 3, qw.Sweep])
def test_what_is_no_sweep_is_refused(given):
    with pytest.raises(TypeError, match=r"sweep must be a Sweep, .*; got (dict|str|int|type)\."):
        Explorer(given)


def test_the_data_set_of_a_sweep_is_not_a_sweep(sweep):
    with pytest.raises(TypeError, match=r"got Dataset"):
        Explorer(sweep.dataset)


def test_settings_with_a_sweep_are_refused(sweep):
    with pytest.raises(TypeError, match="takes no settings; got epochs, data"):
        Explorer(sweep, epochs=3, data="digits")


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"data": "digit"}, ValueError, "'digits'"),
        ({"model": "mpl"}, ValueError, "did you mean 'mlp'"),
        ({"regularizer": "gradeint"}, ValueError, "did you mean 'gradient'"),
        ({"epsilon": [-0.1, 0.1]}, ValueError, r"epsilon must be .* got -0\.1"),
        ({"epsilon": [0, math.nan]}, ValueError, "epsilon must be finite"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"epoch": 3}, TypeError, "epoch"),
    ],
)
def test_wrong_settings_are_refused_at_once_and_leave_nothing(settings, error, words):
    before = set(registry._instances)
    with pytest.raises(error, match=words):
        Explorer(**settings)
    assert set(registry._instances) == before
    assert training_threads() == []


# Live training


def test_training_shows_every_epoch(make):
    explorer = make(**TINY, epochs=3)
    shown = explorer.wait(60)
    assert shown.complete
    assert explorer.sweep is shown
    assert explorer.run["phase"] == "done"
    assert explorer.run["fraction"] == 1.0
    assert "3 epochs" in explorer.run["message"]
    assert explorer.heading["subtitle"].startswith("digits · mlp 128-128 · 2 × 2 networks")
    assert_shows(explorer.cube, shown.dataset)


def test_training_gives_the_cube_of_a_sweep(make, sweep):
    explorer = make(**TINY, epochs=2)
    assert explorer.wait(60).dataset.identical(sweep.dataset)


def test_the_newest_epoch_is_followed_until_another_is_chosen(make):
    explorer = make(**ENDLESS)
    milestones = Milestones(explorer)
    epochs = []
    explorer.observe(lambda change: epochs.append(change.new), "epoch")
    milestones.wait(finished(4))
    explorer.pause()
    milestones.wait(in_phase("paused"))
    assert explorer.epoch == explorer.cube["finished"] - 1
    assert epochs[:3] == [1, 2, 3]
    explorer.epoch = 1
    count = explorer.cube["finished"]
    explorer.resume()
    milestones.wait(finished(count + 3))
    assert explorer.epoch == 1


def test_progress_never_goes_back(make):
    explorer = make(**TINY, epochs=3)
    runs = []
    explorer.observe(lambda change: runs.append(change.new), "run")
    explorer.wait(60)
    fractions = [run["fraction"] for run in runs]
    assert fractions == sorted(fractions)
    assert runs[-1]["phase"] == "done"
    assert {run["phase"] for run in runs} <= {"preparing", "training", "done"}


def test_wait_gives_up_in_time_and_training_goes_on(make):
    explorer = make(**ENDLESS)
    with pytest.raises(TimeoutError, match=r"timeout=0 seconds; it goes on"):
        explorer.wait(0)
    assert len(training_threads()) == 1


def test_cancel_keeps_the_finished_epochs(make):
    explorer = make(**ENDLESS)
    Milestones(explorer).wait(finished(3))
    explorer.cancel()
    kept = explorer.wait(30)
    assert training_threads() == []
    assert not kept.complete
    assert explorer.run["phase"] == "cancelled"
    assert 0 < explorer.run["fraction"] < 1
    last = int(kept.dataset.epoch[-1])
    assert last >= 2
    assert explorer.run["message"].endswith(f"epochs 0 to {last} are kept")
    assert_shows(explorer.cube, kept.dataset)


def test_pause_holds_and_resume_goes_on(make):
    explorer = make(**ENDLESS)
    milestones = Milestones(explorer)
    milestones.wait(finished(1))
    explorer.pause()
    milestones.wait(in_phase("paused"))
    fraction, count = explorer.run["fraction"], explorer.cube["finished"]
    with pytest.raises(TimeoutError):
        explorer.wait(0.5)
    assert explorer.run["phase"] == "paused"
    assert (explorer.run["fraction"], explorer.cube["finished"]) == (fraction, count)
    explorer.resume()
    milestones.wait(lambda e: e.run["phase"] == "training" and e.run["fraction"] > fraction)


def test_cancel_ends_a_paused_training(make):
    explorer = make(**ENDLESS)
    milestones = Milestones(explorer)
    milestones.wait(finished(1))
    explorer.pause()
    milestones.wait(in_phase("paused"))
    explorer.cancel()
    explorer.wait(30)
    assert explorer.run["phase"] == "cancelled"
    assert training_threads() == []


def test_commands_of_the_browser_do_the_same(make):
    explorer = make(**ENDLESS)
    milestones = Milestones(explorer)
    for command, phase in (("pause", "paused"), ("resume", "training"), ("cancel", "cancelled")):
        explorer._handle_custom_msg({"type": command}, [])
        milestones.wait(in_phase(phase))
    explorer._handle_custom_msg({"type": "format the disk"}, [])
    assert explorer.run["phase"] == "cancelled"


def test_cancel_before_anything_is_finished(make):
    explorer = make(**ENDLESS)
    explorer.cancel()
    Milestones(explorer).wait(in_phase("cancelled"))
    assert explorer._runner.join(30)
    if explorer.sweep is None:
        with pytest.raises(RuntimeError, match=r"before anything was finished; start it with"):
            explorer.wait()


def test_training_starts_anew_after_a_cancel(make):
    explorer = make(**TINY, epochs=2)
    explorer.cancel()
    assert explorer._runner.join(30)
    explorer.train()
    shown = explorer.wait(60)
    assert shown.complete
    assert explorer.run["phase"] == "done"
    assert_shows(explorer.cube, shown.dataset)


def test_training_again_starts_at_epoch_0_whatever_is_chosen(make):
    explorer = make(**TINY, epochs=2)
    first = explorer.wait(60)
    explorer.epoch, explorer.label, explorer.epsilon = 2, 7, 0.05
    explorer.train()
    second = explorer.wait(60)
    assert second is not first
    assert second.dataset.identical(first.dataset)
    assert (explorer.label, explorer.epsilon) == (7, 0.05)
    assert_shows(explorer.cube, second.dataset)


def test_train_while_training_does_nothing(make):
    explorer = make(**ENDLESS)
    runner = explorer._runner
    explorer.train()
    assert explorer._runner is runner
    assert len(training_threads()) == 1


def test_each_number_goes_over_the_wire_once():
    sent = []

    class Recorder(Explorer):
        def _send(self, msg, buffers=None):
            super()._send(msg, buffers)
            sent.append(sum(memoryview(buffer).nbytes for buffer in buffers or ()))

    explorer = Recorder(**TINY, epochs=4, background=False)
    explorer.train()
    dataset = explorer.wait().dataset
    moved = len(sent)
    explorer.epsilon, explorer.label, explorer.epoch = 0.05, 3, 1
    assert sum(sent[moved:]) == 0
    explorer.close()
    once = sum(values.nbytes for values in views.plot_arrays(dataset).values())
    assert sum(sent) == once
    # One epoch at a time.
    assert [size for size in sent if size] == [once / 5] * 5


# In the foreground


def test_in_the_foreground_it_trains_in_the_call_and_on_no_thread(make, sweep):
    explorer = make(**TINY, epochs=2, background=False)
    assert explorer.run["phase"] == "empty"
    assert "train()" in explorer.run["message"]
    seen, threads = [], set()

    def record(change):
        seen.append(change.new["phase"])
        threads.add(threading.current_thread())

    explorer.observe(record, "run")
    explorer.train()
    assert threads == {threading.current_thread()}
    assert training_threads() == []
    assert explorer.run["phase"] == "done"
    assert "training" in seen
    # All cores work here, and none is spared: sums may be rounded in another order.
    trained = explorer.wait(0)
    assert trained.complete
    assert trained.settings == sweep.settings
    assert_shows(explorer.cube, trained.dataset)


def test_an_interrupt_in_the_foreground_keeps_the_finished_epochs(make):
    explorer = make(**ENDLESS, background=False)

    def interrupt(change):
        if change.new["phase"] == "training" and explorer.cube.get("finished", 0) >= 3:
            raise KeyboardInterrupt

    explorer.observe(interrupt, "run")
    explorer.train()
    assert explorer.run["phase"] == "cancelled"
    assert explorer.run["message"].startswith("Interrupted")
    assert 0 < explorer.run["fraction"] < 1
    assert explorer.wait(0).dataset.sizes["epoch"] >= 3


class Brittle(torch.nn.Module):
    """Passes every check of the settings, and fails as soon as it is trained."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, inputs):
        if threading.current_thread().name == "qwidgets-training":
            message = "the network is broken"
            raise ArithmeticError(message)
        return self.layer(inputs.flatten(1))


def test_an_error_in_the_worker_is_shown_and_raised(make):
    explorer = make(**TINY, epochs=1, model=Brittle)
    with pytest.raises(ArithmeticError, match="the network is broken"):
        explorer.wait(60)
    assert explorer.run["phase"] == "failed"
    assert explorer.run["message"] == "ArithmeticError: the network is broken"
    assert training_threads() == []


def test_two_explorers_do_not_interfere(make, sweep):
    endless, first, second = make(**ENDLESS), make(**TINY, epochs=2), make(**TINY, epochs=2, seed=5)
    first_sweep, second_sweep = first.wait(60), second.wait(60)
    assert first_sweep.dataset.identical(sweep.dataset)
    assert not second_sweep.dataset.clean_accuracy.equals(sweep.dataset.clean_accuracy)
    assert_shows(first.cube, first_sweep.dataset)
    assert_shows(second.cube, second_sweep.dataset)
    first.cancel()
    second.close()
    assert endless.run["phase"] != "cancelled"
    assert len(training_threads()) == 1


def test_state_on_the_way_holds_all_finished_epochs(make):
    explorer = make(**ENDLESS)
    milestones = Milestones(explorer)
    milestones.wait(finished(4))
    explorer.pause()
    milestones.wait(in_phase("paused"))
    # What a page that is opened now receives.
    assert_shows(explorer.get_state()["cube"], explorer.sweep.dataset)


def test_a_closed_explorer_leaves_nothing(sweep):
    before = set(registry._instances)
    explorer = Explorer(**ENDLESS)
    Milestones(explorer).wait(finished(1))
    runner = explorer._runner
    assert len(set(registry._instances) - before) > 20
    explorer.close()
    assert runner.join(30)
    assert set(registry._instances) == before
    shown = Explorer(sweep)
    shown.close()
    assert set(registry._instances) == before
