"""The choice of the strategy: measured once, remembered, and what the sweep then uses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import qwidgets as qw
from qwidgets import tuning
from qwidgets.training import TrainingSettings
from qwidgets.tuning import fastest_strategy

SETTINGS = TrainingSettings(epochs=1, batch_size=16, learning_rate=1e-3)


@pytest.fixture(scope="module")
def data():
    return qw.load_data("digits", train_size=60, test_size=20)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QWIDGETS_CACHE", str(tmp_path))
    return tmp_path / "strategies.json"


def test_perceptrons_need_no_measurement(data, cache):
    assert fastest_strategy(qw.build_model("mlp", data), data, SETTINGS, "cpu") == "stacked"
    assert not cache.exists()


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"loop": 1.0, "vmap": 0.5}, "vmap"),
        ({"loop": 1.0, "vmap": 0.84}, "vmap"),
        # The rule for convolutions on a processor, which stays unless another one is well ahead.
        ({"loop": 1.0, "vmap": 0.86}, "loop"),
        ({"loop": 0.5, "vmap": 1.0}, "loop"),
    ],
)
def test_the_faster_one_is_chosen_and_remembered(data, cache, monkeypatch, seconds, chosen):
    # How long they take is no test's business; what follows from it is.
    monkeypatch.setattr(tuning, "_seconds", lambda *arguments: seconds[arguments[-1]])
    assert fastest_strategy(qw.build_model("conv", data), data, SETTINGS, "cpu") == chosen
    assert list(json.loads(cache.read_text()).values()) == [chosen]


def test_what_is_remembered_is_used(data, cache):
    first = fastest_strategy(qw.build_model("conv", data), data, SETTINGS, "cpu")
    (name,) = json.loads(cache.read_text())
    other = {"vmap": "loop", "loop": "vmap"}[first]
    cache.write_text(json.dumps({name: other}))
    assert fastest_strategy(qw.build_model("conv", data), data, SETTINGS, "cpu") == other
    grown = qw.sweep(
        data, "conv", [0], [0], epochs=1, batch_size=16, learning_rate=1e-3, progress=False
    )
    assert grown.dataset.attrs["strategy"] == other


@pytest.mark.parametrize("content", ["", "[1]", '{"x": 3}', "\0"])
def test_a_damaged_memory_is_measured_again(data, cache, content):
    cache.write_text(content)
    network = qw.build_model("conv", data)
    chosen = fastest_strategy(network, data, SETTINGS, "cpu")
    assert chosen in json.loads(cache.read_text()).values()


def test_a_place_that_cannot_be_written_is_done_without(data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QWIDGETS_CACHE", str(tmp_path / "file"))
    assert fastest_strategy(qw.build_model("conv", data), data, SETTINGS, "cpu") in {"vmap", "loop"}


class Recurrent(nn.Module):
    """Reads an image line by line; vmap knows no such layer."""

    def __init__(self):
        super().__init__()
        self.read, self.head = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 10)

    def forward(self, x):
        return self.head(self.read(x[:, 0])[0][:, -1])


def test_a_strategy_that_cannot_train_a_network_is_not_chosen(data):
    assert fastest_strategy(Recurrent(), data, SETTINGS, "cpu") == "loop"


def test_layers_that_act_in_training_alone_are_still(data):
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    assert fastest_strategy(network, data, SETTINGS, "cpu") in {"vmap", "loop"}


def test_a_network_that_no_strategy_trains_is_refused_with_the_reasons(data):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    network = nn.Sequential(nn.Flatten(1, 2), layer, nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ValueError, match=r"can be trained here, but: .* not implemented; .*'gradi"):
        fastest_strategy(network, data, SETTINGS, "cpu")
    chosen = replace(SETTINGS, regularizer="weight_decay")
    assert fastest_strategy(network, data, chosen, "cpu") == "loop"


def test_the_random_state_is_left_alone(data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fastest_strategy(qw.build_model("attention", data), data, SETTINGS, "cpu")
    assert torch.equal(torch.rand(3), expected)
