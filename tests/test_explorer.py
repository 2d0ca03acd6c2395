"""The Explorer without a browser: what it refuses, trains, keeps, and gives back."""

from __future__ import annotations

import math
import re
import subprocess
import sys
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
        explorer.observe(self._wake, ["run", "cube", "refined"])

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
        ("model", "mine", "model must be one of none, a grid of networks is shown; got 'mine'"),
    ],
)
def test_choices_off_the_cube_are_refused_and_change_nothing(make, sweep, name, value, words):
    explorer = make(sweep)
    before = getattr(explorer, name)
    with pytest.raises(TraitError, match=words):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before


def test_some_panels_stand_in_the_order_of_the_page(make, sweep):
    explorer = make(sweep, panels=("lens", "curves", "lens"))
    assert explorer.panels == ["curves", "lens"]
    explorer.panels = {"plane"}
    assert explorer.panels == ["plane"]
    assert make(sweep).panels[0] == "plane"
    assert len(make(sweep).panels) == 7
    explorer.panels = None
    assert explorer.panels == make(sweep, panels=None).panels == make(sweep).panels


@pytest.mark.parametrize("name", ["label", "epoch", "image"])
def test_choices_below_0_are_refused_before_anything_is_shown(make, name):
    explorer = make(background=False)
    with pytest.raises(TraitError, match=f"{name} must be at least 0; got -2"):
        setattr(explorer, name, -2)


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        (["plane", "curve"], ValueError, r"got 'curve' \(did you mean 'curves'\?\)"),
        ([], ValueError, r"at least one panel, of 'plane', .*; got \[\]"),
        ("plane", TypeError, "must be a list of names, of 'plane', .*; got 'plane'"),
        ([["plane"]], ValueError, r"got \['plane'\]"),
        (3, TypeError, "got 3"),
    ],
)
def test_what_is_no_panel_is_refused_and_changes_nothing(make, sweep, names, error, words):
    with pytest.raises(error, match=words):
        make(sweep, panels=names)
    explorer = make(sweep, panels=["curves"])
    with pytest.raises(TraitError, match=words):
        explorer.panels = names
    assert explorer.panels == ["curves"]


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


def test_in_the_foreground_the_lens_looks_when_the_training_is_over(make):
    explorer = make(**TINY, epochs=1, background=False)
    explorer._handle_custom_msg({"type": "look"}, [])
    seen = []
    explorer.observe(
        lambda change: seen.append((explorer.run["phase"], change.new["state"])), "lens"
    )
    explorer.train()
    assert set(seen) == {("done", "ready")}
    explorer.epsilon = 0.1
    assert explorer.lens["epsilon"] == 0.1
    assert not any(thread.name == "qwidgets-answers" for thread in threading.enumerate())
    # A second training waits for the first, whoever asks for it.
    phases = []

    def again(change):
        phases.append(change.new["phase"])
        explorer._handle_custom_msg({"type": "train"}, [])

    explorer.observe(again, "run")
    explorer.train()
    assert phases.count("preparing") == 1


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


def test_a_closed_explorer_does_nothing_and_says_so(sweep, tmp_path):
    explorer = Explorer(sweep)
    explorer.close()
    for act in (explorer.train, explorer.refine, explorer.look, lambda: explorer.show(0)):
        with pytest.raises(RuntimeError, match="needs an open Explorer, and this one is closed"):
            act()
    assert training_threads() == []
    qw.export_html(explorer, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 100_000


def test_a_script_may_end_while_it_trains():
    code = (
        "import qwidgets as qw, time\n"
        "explorer = qw.Explorer(epsilon=[0, 0.1], regularization=[0], epochs=10_000)\n"
        "while explorer.run['phase'] != 'training': time.sleep(0.05)\n"
        "print('ends')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ends\n", "")


# The attack lens


def numbers(lens, name):
    array = lens["values"][name]
    return np.frombuffer(array["data"], array["dtype"]).reshape(array["shape"])


def test_the_lens_shows_the_network_at_the_sliders(make, sweep):
    explorer = make(sweep)
    assert explorer.lens["state"] == "empty"
    explorer.epsilon, explorer.regularization, explorer.label, explorer.image = 0.1, 0.3, 4, 2
    seen = explorer.look()
    index = (sweep.data.test_labels == 4).nonzero()[2, 0]
    expected = qw.lens(
        sweep.model(epsilon=0.1, regularization=0.3),
        sweep.data.test_inputs[index],
        4,
        epsilon=explorer.attack_epsilon,
        radius=sweep.dataset.attrs["neighborhood_radius"],
        steps=sweep.dataset.attrs["measurement_attack_steps"],
    )
    for name in ("image", "attacked", "probability", "momentum_std", "momentum_std_error"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(expected, name))
        wire = numbers(explorer.lens, name)
        np.testing.assert_array_equal(wire, getattr(expected, name).astype(np.float32))
    of = {key: explorer.lens[key] for key in ("epsilon", "regularization", "kind", "epoch")}
    assert of == {"epsilon": 0.1, "regularization": 0.3, "kind": "trained", "epoch": 2}
    assert (explorer.lens["label"], explorer.lens["image"]) == (4, 2)


def test_between_networks_the_lens_says_which_is_the_nearest(make, sweep):
    explorer = make(sweep)
    explorer.epsilon, explorer.regularization = 0.07, 0.1
    explorer.look()
    assert (explorer.lens["epsilon"], explorer.lens["regularization"]) == (0.1, 0.0)


def test_the_lens_follows_once_it_is_watched(make, sweep):
    explorer = make(sweep)
    changed = threading.Condition()
    explorer.observe(lambda _: [changed.acquire(), changed.notify_all(), changed.release()], "lens")
    explorer.epsilon = 0.1
    assert explorer.lens["state"] == "empty"
    explorer._handle_custom_msg({"type": "look"}, [])
    for name, value in (("epsilon", 0.0), ("label", 7), ("image", 3), ("attack_epsilon", 0.2)):
        setattr(explorer, name, value)
        with changed:
            assert changed.wait_for(
                lambda name=name, value=value: explorer.lens.get(name) == value, 30
            )
    assert explorer._looking.wait(30)
    # An image that the next class does not have is its last one.
    explorer.image = 10_000
    assert explorer._looking.wait(30)
    assert explorer.lens["image"] == explorer.lens["images"] - 1


def test_a_lens_without_images_says_what_to_do(make, tmp_path):
    generator = torch.Generator().manual_seed(0)
    data = qw.Dataset.from_arrays(
        torch.rand((60, 4), generator=generator), torch.arange(60) % 2, value_range=(0, 1)
    )
    settings = {"epsilon": [0], "regularization": [0], "epochs": 1, "probe_images": 1}
    qw.sweep(data, **settings, progress=False).save(tmp_path / "own")
    explorer = make(qw.open_sweep(tmp_path / "own"))
    with pytest.raises(ValueError, match=r"open_sweep\(path, data=dataset\)"):
        explorer.look()
    assert explorer.lens["state"] == "missing"
    assert "open_sweep(path, data=dataset)" in explorer.lens["message"]
    again = make(qw.open_sweep(tmp_path / "own", data=data))
    assert again.look().image.shape == (4,)


def test_no_lens_before_anything_is_finished(make):
    explorer = make(**ENDLESS)
    explorer.cancel()
    assert explorer._runner.join(30)
    if explorer.sweep is None:
        with pytest.raises(RuntimeError, match="wait for the first"):
            explorer.look()


def test_two_dimensional_data_have_an_input_plane_of_all_networks(make):
    settings = TINY | {"data": "moons", "epochs": 1, "detail": None}
    explorer = make(**settings)
    explorer.wait(60)
    assert explorer.regions["state"] == "empty"
    explorer.look()
    assert explorer.regions["state"] == "ready"
    assert numbers(explorer.regions, "odds").shape[0] == 4
    network = explorer.sweep.model(epsilon=0.1, regularization=0.3)
    (low, high), size = explorer.regions["range"], explorer.regions["size"]
    with torch.no_grad():
        corner = network(torch.tensor([[high, low]]))
    odds = float(corner[0, 1] - corner[0, 0])
    assert float(numbers(explorer.regions, "odds")[3, 0, 0, size - 1]) == pytest.approx(
        odds, rel=2e-3, abs=2e-3
    )
    # A refined network comes behind them; another training without a plane has none.
    explorer.refine(1, epsilon=0.05)
    explorer.wait(60)
    explorer.look()
    assert numbers(explorer.regions, "odds").shape[0] == 5
    explorer.train(data="digits", epsilon=[0], train_size=60, test_size=40)
    explorer.wait(60)
    explorer.look()
    assert explorer.regions["state"] == "empty"


# Refining


def test_refining_streams_a_network_at_the_sliders(make, sweep):
    explorer = make(sweep)
    explorer.epsilon, explorer.regularization = 0.05, 0.1
    runs = []
    explorer.observe(lambda change: runs.append(change.new), "run")
    explorer.refine(3)
    assert explorer.wait(60) is sweep
    assert {run["phase"] for run in runs} <= {"preparing", "refining", "done"}
    assert runs[-1]["message"].startswith("Refined ε 0.05, λ 0.1 by 3 epochs")
    [network], [refined] = explorer.refinements, explorer.refined
    assert network.complete
    about = {name: refined[name] for name in ("epsilon", "regularization", "finished", "complete")}
    assert about == {"epsilon": 0.05, "regularization": 0.1, "finished": 4, "complete": True}
    for name, values in views.plot_arrays(network.dataset).items():
        np.testing.assert_array_equal(numbers(refined, name), values[:, 0, 0])
    # The lens looks at this very network.
    explorer.look()
    of = [explorer.lens[name] for name in ("kind", "epsilon", "regularization", "epoch")]
    assert of == ["refined", 0.05, 0.1, 3]


def test_refined_networks_stay_and_are_not_trained_twice(make, sweep):
    explorer = make(sweep)
    for epsilon in (0.05, 0.07):
        explorer.refine(1, epsilon=epsilon)
        explorer.wait(60)
    first = explorer.refinements
    explorer.refine(1, epsilon=0.05)
    explorer.wait(60)
    assert explorer.refinements == first
    assert [one["epsilon"] for one in explorer.refined] == [0.05, 0.07]
    assert explorer.epsilon == 0.05


def test_a_cancelled_refinement_can_be_begun_again(make, sweep):
    explorer = make(sweep)
    milestones = Milestones(explorer)
    explorer.refine(100_000, epsilon=0.05)
    milestones.wait(lambda e: bool(e.refined) and e.refined[0]["finished"] > 2)
    explorer.cancel()
    explorer.wait(30)
    assert explorer.run["phase"] == "cancelled"
    assert re.fullmatch(
        r"Cancelled in epoch \d+ of refining ε 0\.05, λ 0; \d+ of its epochs are kept",
        explorer.run["message"],
    )
    assert not explorer.refined[0]["complete"]
    explorer.refine(1, epsilon=0.05)
    explorer.wait(60)
    assert [one["complete"] for one in explorer.refined] == [True]
    assert explorer.refined[0]["epochs"] == 1


def test_nothing_is_refined_on_the_grid_or_without_one(make, sweep):
    explorer = make(sweep)
    with pytest.raises(ValueError, match=r"between the networks of the grid, got ε 0\.1, λ 0\.3"):
        explorer.refine(epsilon=0.1, regularization=0.3)
    with pytest.raises(TypeError, match="epochs must be .*, got '2'"):
        explorer.refine("2", epsilon=0.05)
    with pytest.raises(TraitError, match=r"on the trained grid, 0 to 0\.1; got 0\.2"):
        explorer.refine(epsilon=0.2, regularization=0.1)
    assert (explorer.epsilon, explorer.regularization) == (0, 0)
    # A click has nobody but the widget to tell; what is shown stays as it was.
    told = []
    explorer.observe(lambda change: told.append(change.new), "problem")
    for _ in range(2):
        explorer._handle_custom_msg({"type": "refine"}, [])
    words = "The Explorer could not refine. ValueError: refine needs a point between the networks"
    assert explorer.problem.startswith(words)
    # Each click has its answer, also where it is the same.
    assert told == [explorer.problem, "", explorer.problem]
    assert explorer.run["phase"] == "done"
    fresh = make(**ENDLESS)
    fresh.cancel()
    assert fresh._runner.join(30)
    if fresh.sweep is None:
        with pytest.raises(RuntimeError, match="grid of trained networks"):
            fresh.refine()


def test_only_one_thing_is_trained_at_a_time(make):
    explorer = make(**ENDLESS)
    Milestones(explorer).wait(finished(2))
    runner = explorer._runner
    explorer.refine()
    explorer.train(keep=True)
    assert explorer._runner is runner
    with pytest.raises(RuntimeError, match="cancel it"):
        explorer.show(0)


# Keeping


def test_what_is_shown_is_kept_if_asked_and_can_be_returned_to(make):
    explorer = make(**TINY, epochs=2)
    first = explorer.wait(60)
    explorer.refine(1, epsilon=0.05)
    explorer.wait(60)
    explorer.epsilon = 0.1
    small = {"train_size": 64, "test_size": 20, "detail": None}
    explorer.train(keep=True, data="moons", regularizer="weight_decay", **small)
    second = explorer.wait(60)
    assert second.settings.data == "moons"
    assert second.settings.regularizer == "weight_decay"
    assert second.settings.epochs == 2
    # Radii and strengths are those of the new data and regularizer.
    assert len(second.settings.epsilon) == len(second.settings.regularization) == 8
    assert explorer.kept == (first, second)
    assert explorer.refined == []
    assert_shows(explorer.cube, second.dataset)
    assert explorer.runs["shown"] == 1
    explorer._handle_custom_msg({"type": "show", "index": 0}, [])
    assert explorer.sweep is first
    assert_shows(explorer.cube, first.dataset)
    assert [one["epsilon"] for one in explorer.refined] == [0.05]
    assert explorer.runs["names"][0].endswith("2 epochs · 1 refined")
    with pytest.raises(IndexError, match="from 0 to 1, got 2"):
        explorer.show(2)


def test_what_is_shown_is_what_is_trained_again(make):
    moons = qw.sweep("moons", **TINY | {"train_size": 64, "test_size": 20}, epochs=1, seed=3)
    explorer = make(moons)
    explorer._handle_custom_msg({"type": "train", "keep": True}, [])
    again = explorer.wait(60)
    assert again is not moons
    assert again.dataset.identical(moons.dataset)
    explorer.train(keep=True, data="digits", **TINY | {"epsilon": [0], "detail": None})
    assert explorer.wait(60).settings.data == "digits"
    explorer.show(0)
    # Chosen beside what is shown.
    explorer._handle_custom_msg({"type": "train", "keep": True, "width": 0.5}, [])
    chosen = explorer.wait(60).settings
    assert (chosen.data, chosen.model, chosen.width) == ("moons", "mlp", 0.5)
    assert (chosen.seed, chosen.epsilon) == (3, moons.settings.epsilon)


def test_what_is_trained_again_is_something_new_for_the_page(make):
    explorer = make(**TINY, epochs=1)
    explorer.wait(60)
    serial = explorer.cube["serial"]
    explorer.train()
    explorer.wait(60)
    assert explorer.cube["serial"] > serial


def test_otherwise_the_first_new_epoch_takes_its_place(make):
    explorer = make(**TINY, epochs=2)
    first = explorer.wait(60)
    explorer.train()
    second = explorer.wait(60)
    assert explorer.kept == (second,)
    assert second is not first


def test_wrong_new_settings_are_refused_and_change_nothing(make):
    explorer = make(**TINY, epochs=1)
    shown = explorer.wait(60)
    with pytest.raises(ValueError, match="did you mean 'moons'"):
        explorer.train(data="moon")
    assert explorer.sweep is shown
    # The browser's are refused in the worker, which tells.
    explorer._handle_custom_msg({"type": "train", "keep": False, "model": "conv", "width": -1}, [])
    with pytest.raises(ValueError, match="width must be"):
        explorer.wait(60)
    assert explorer.run["phase"] == "failed"
    assert explorer.sweep is shown
    explorer.train(width=0.5)
    assert explorer.wait(60).settings.width == 0.5


# Models of one's own


def test_models_of_ones_own_are_measured_side_by_side(make, sweep):
    models = {
        "clean": sweep.model(epsilon=0, regularization=0),
        "robust": sweep.model(epsilon=0.1, regularization=0.3),
    }
    explorer = make(models=models, data=sweep.data, attack_steps=5, probe_images=1)
    runs = []
    explorer.observe(lambda change: runs.append(change.new), "run")
    measured = explorer.wait(60)
    assert measured.names == ("clean", "robust")
    assert {run["phase"] for run in runs} <= {"preparing", "measuring", "done"}
    assert explorer.run["message"].startswith("Measured 2 models")
    cube = explorer.cube
    assert (cube["axes"]["model"], cube["epochs"], cube["finished"]) == (["clean", "robust"], 0, 1)
    for name, values in views.plot_arrays(measured.dataset).items():
        np.testing.assert_array_equal(numbers(cube, name), values)
    assert explorer.model == "clean"
    explorer.model = "robust"
    explorer.look()
    assert (explorer.lens["kind"], explorer.lens["model"]) == ("own", "robust")
    with pytest.raises(TraitError, match="must be one of 'clean', 'robust'; got 'other'"):
        explorer.model = "other"
    with pytest.raises(RuntimeError, match="grid of trained networks"):
        explorer.refine()


def test_models_at_chance_are_doubted(make, sweep):
    torch.manual_seed(0)
    untrained = qw.build_model("mlp", sweep.data, seed=5)
    explorer = make(models={"none": untrained}, data=sweep.data, probe_images=1, detail=False)
    explorer.wait(60)
    assert "model 'none' classifies" in explorer.problem
    assert "no better than chance" in explorer.problem


def test_a_grid_and_models_can_take_each_others_place(make, sweep):
    explorer = make(sweep)
    network = sweep.model(epsilon=0.1, regularization=0.3)
    explorer.train(keep=True, model=network, data=sweep.data, probe_images=1, detail=False)
    assert explorer.wait(60).names == ("model",)
    with pytest.raises(TypeError, match="epochs is nothing that models .* are measured with"):
        explorer.train(epochs=3)
    explorer.train(keep=True, model="mlp", epochs=1, **TINY)
    assert explorer.wait(60).settings.epochs == 1
    assert len(explorer.kept) == 3


def test_one_model_and_a_measurement_are_shown(make, sweep):
    network = sweep.model(epsilon=0.1, regularization=0.3)
    explorer = make(model=network, data=sweep.data, probe_images=1, detail=False)
    measured = explorer.wait(60)
    assert explorer.heading["subtitle"].startswith("digits · your model")
    again = make(measured)
    assert again.sweep is measured
    assert again.run["message"] == "1 model, measured and not trained"
    assert again.cube["values"].keys() == explorer.cube["values"].keys()


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"models": {}}, TypeError, "data must be given with models of your own"),
        ({"model": torch.nn.Linear(64, 10)}, TypeError, "data must be given"),
        ({"models": {}, "data": qw.load_data("digits")}, ValueError, "at least one network"),
        (
            {"model": torch.nn.Linear(64, 10), "data": qw.load_data("digits")},
            ValueError,
            "must take inputs of shape",
        ),
        (
            {"model": torch.nn.Linear(2, 2), "models": {}, "data": qw.load_data("moons")},
            TypeError,
            "the same choice",
        ),
        (
            {"model": torch.nn.Linear(2, 2), "data": qw.load_data("moons"), "epochs": 3},
            TypeError,
            "epochs is nothing that models of your own are measured with",
        ),
        (
            {
                "model": torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)),
                "data": qw.load_data("moons"),
            },
            TypeError,
            "must be a module in Python, got TopLevelTracedModule",
        ),
    ],
)
def test_wrong_models_are_refused_at_once_and_leave_nothing(settings, error, words):
    before = set(registry._instances)
    with pytest.raises(error, match=words):
        Explorer(**settings)
    assert set(registry._instances) == before
    assert training_threads() == []
