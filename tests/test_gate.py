"""The gate: work is held and stopped in the middle of a step, and no number knows."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

import qwidgets as qw
from qwidgets.ensemble import batched_forward, stack_parameters
from qwidgets.gate import Stopped, gated
from qwidgets.models import packet_loss
from qwidgets.sweep import iterate_sweep, one_core_spared

SETTINGS = {
    "epsilon": [0, 0.1],
    "regularization": [0, 0.1],
    "epochs": 1,
    "train_size": 64,
    "test_size": 40,
    "attack_steps": 3,
    "probe_images": 1,
    "attack_epsilon": [0, 0.1],
    "detail": None,
}


class Counted:
    """Lets `allowed` passages through and stops the next."""

    def __init__(self, allowed=None):
        self.passed = 0
        self.allowed = allowed
        self.lock = threading.Lock()

    def __call__(self):
        with self.lock:
            if self.allowed is not None and self.passed >= self.allowed:
                raise Stopped
            self.passed += 1


@pytest.mark.parametrize("model", ["mlp", "conv", "attention"])
def test_every_evaluation_passes(model):
    data = qw.load_data("digits", test_size=20)
    network = qw.build_model(model, data)
    forward = batched_forward(network, data.input_shape)
    check = Counted()
    with gated(check):
        forward(stack_parameters([network] * 3), data.test_inputs)
        first = check.passed
        packet_loss(network, 0, data.input_shape)(data.test_inputs.flatten(1))
    assert first >= 1
    assert check.passed > first
    # Beyond the context nothing is checked.
    forward(stack_parameters([network] * 3), data.test_inputs)


@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_a_step_has_many_passages(model):
    check = Counted()
    with gated(check):
        units = list(iterate_sweep(model=model, **SETTINGS))
    # Each step of each attack, and each image of each network on the way.
    assert check.passed > 2 * len(units)


@pytest.mark.parametrize("allowed", [0, 1, 40])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_work_ends_at_the_gate_whoever_passes_it(allowed, threads, model):
    before, alive = torch.get_num_threads(), threading.active_count()
    torch.set_num_threads(threads)
    try:
        units = iterate_sweep(model=model, **SETTINGS)
        check = Counted(allowed)
        with gated(check), pytest.raises(Stopped):
            for _ in units:
                pass
        assert check.passed == allowed
        assert next(units, None) is None
    finally:
        torch.set_num_threads(before)
    # The threads that helped are gone.
    assert threading.active_count() == alive


def test_no_number_depends_on_it():
    with gated(lambda: None):
        *_, one = (unit.sweep for unit in iterate_sweep(**SETTINGS) if unit.sweep)
    *_, two = (unit.sweep for unit in iterate_sweep(**SETTINGS) if unit.sweep)
    assert one.dataset.identical(two.dataset)


def test_a_store_goes_on_after_a_stop_in_the_middle(tmp_path):
    settings = SETTINGS | {"epochs": 2}
    with one_core_spared(), gated(Counted(60)), pytest.raises(Stopped):
        for _ in iterate_sweep(store=tmp_path / "store", **settings):
            pass
    whole = qw.sweep(**settings, progress=False)
    again = qw.sweep(store=tmp_path / "store", **settings, progress=False)
    assert again.dataset.identical(whole.dataset)


def test_a_model_without_layers_of_its_own_passes_too():
    class Plain(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum(1), -x.sum(1)], 1)

    check = Counted()
    with gated(check):
        packet_loss(Plain(), 0, (3,))(torch.rand(5, 3))
    assert check.passed >= 1
