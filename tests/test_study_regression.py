"""The study of regressions: its tables, its verdicts, and the same again from one seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from reproduced import reproduced

from qwidgets.studies import regression
from qwidgets.studies.study import Setting, columns, comma_separated, finish


@pytest.fixture
def setting(tmp_path):
    return Setting(size="smallest", seed=4, root=None, folder=tmp_path)


@pytest.mark.slow
def test_products_hold_their_bounds_whatever_the_loss(tmp_path):
    tables, found = reproduced("regression", tmp_path)
    assert (tables["packets"]["product"] >= 0.5 - 1e-6).all()
    assert (tables["channels"]["least_margin"] >= -4).all()
    assert found.claims[0].verdict == "supported"
    attack = tables["attacks"]
    assert set(attack["data"]) == {"temperature", "friedman"}
    assert (attack["beyond_random"] > 0).all()
    shares = tables["channels"]
    for name, kinds in regression.KINDS.items():
        of = shares["data"] == name
        assert shares["share"][of].sum() == pytest.approx(of.sum() / len(kinds))


def test_one_seed_gives_one_table(setting, tmp_path):
    other = Setting(size="smallest", seed=4, root=None, folder=tmp_path / "again")
    other.folder.mkdir()
    for part in (regression.training, regression.attacks):
        one, same = (comma_separated(finish(part(chosen))) for chosen in (setting, other))
        assert one == same


def test_nodes_have_their_closed_form(setting):
    c = columns(finish(regression.nodes(setting)))
    for name in ("position_std", "momentum_std", "product"):
        np.testing.assert_allclose(c[name], c[f"exact_{name}"], rtol=1e-8)
    # Without a floor: E t^6 / E t^4 = 5, and 7/12.
    assert c["position_std"][-1] == pytest.approx(math.sqrt(5))
    assert c["momentum_std"][-1] == pytest.approx(math.sqrt(7 / 12))


def epochs_of(position, momentum, loss=-1.0):
    """A table of training in which figures change by so much in each epoch."""
    epoch = np.tile(np.arange(4.0), 4)
    return {
        "data": np.repeat(["temperature", "friedman"], 8),
        "seed": np.tile(np.repeat([0, 1], 4), 2),
        "training_epsilon": np.zeros(16),
        "epoch": epoch,
        "test_loss": 10 + loss * epoch,
        "position_std": 1 + position * epoch,
        "momentum_std": 1 + momentum * epoch,
        "uncertainty_product": 0.5 + 0.1 * abs(position) * epoch,
        "uncertainty_product_error": np.full(16, 1e-3),
    }


def test_learning_is_judged_by_its_signs():
    assert regression._learning(epochs_of(-0.1, 0.1)).verdict == "supported"
    assert regression._learning(epochs_of(0.1, 0.1)).verdict == "supported under a condition"
    assert regression._learning(epochs_of(-0.1, -0.1)).verdict == "not supported"
    assert regression._learning(epochs_of(-0.1, 0.1, loss=1.0)).verdict == "not supported"


def test_nodes_are_judged_by_what_networks_do(setting):
    c = columns(finish(regression.nodes(setting)))
    assert regression._node(c, epochs_of(0.1, 0.1)).verdict == "supported"
    assert regression._node(c, epochs_of(0.0, 0.1)).verdict == "not supported"
    wrong = {**c, "position_std": 1.1 * c["position_std"]}
    assert regression._node(wrong, epochs_of(0.1, 0.1)).verdict == "not supported"


def pairs(momentum, attacked, clean):
    """Packets and attacks of clean networks and of robust ones that have these in place of 1."""
    data = np.repeat(["temperature", "friedman"], 4)
    seed = np.tile([0, 0, 1, 1], 2)
    epsilon = np.array([0, 0.05, 0, 0.05, 0, 0.1, 0, 0.1])
    radius = np.repeat([0.05, 0.1], 4)
    robust = epsilon > 0
    # Pairs must not be equal, or their means had no error.
    own = 1 + 0.01 * seed
    packet = {
        "data": data,
        "seed": seed,
        "training_epsilon": epsilon,
        "momentum_std": np.where(robust, momentum * own, 1),
    }
    attack = {
        "data": data,
        "seed": seed,
        "training_epsilon": epsilon,
        "attack_epsilon": radius,
        "attacked": np.where(robust, attacked, 1),
        "clean": np.where(robust, clean, 1),
    }
    return packet, attack


def test_adversarial_training_is_judged_by_its_pairs():
    assert regression._robust(*pairs(0.5, 0.5, 1.5)).verdict == "supported"
    assert regression._robust(*pairs(0.5, 0.5, 0.9)).verdict == "supported under a condition"
    assert regression._robust(*pairs(1.5, 0.5, 1.5)).verdict == "not supported"
    assert regression._robust(*pairs(0.5, 1.5, 1.5)).verdict == "not supported"


def test_attacks_are_judged_beside_random_perturbations():
    _, attack = pairs(1, 1, 1)
    more = {
        **attack,
        "random": np.full(8, 1.0),
        "beyond_random": np.full(8, 0.5),
        "beyond_random_error": np.full(8, 0.1),
    }
    assert regression._beyond_random(more).verdict == "supported"
    less = {**more, "beyond_random": np.full(8, 0.1)}
    assert regression._beyond_random(less).verdict == "not supported"
    some = np.where(np.arange(8) < 6, 0.5, 0.1)
    assert regression._beyond_random({**more, "beyond_random": some}).verdict == (
        "supported under a condition"
    )


def test_inputs_are_judged_by_the_momentum_of_their_kind():
    rows = [
        {"data": name, "training_epsilon": 0.0, "kind": kind, "momentum_std": 2.0**-place * jitter}
        for name, kinds in regression.KINDS.items()
        for place, kind in enumerate(kinds)
        for jitter in (1.0, 1.01)
    ]
    c = columns(rows) | {"share": np.full(len(rows), 0.25)}
    assert regression._inputs(c).verdict == "supported"
    turned = {**c, "momentum_std": 1 / c["momentum_std"]}
    assert regression._inputs(turned).verdict == "not supported"


def test_a_product_below_its_bound_would_be_seen():
    packet = {"product": np.array([0.5, 0.6])}
    channel = {
        "least_margin": np.array([-1.0, 3.0]),
        "least_product": np.array([0.1, 0.6]),
        "share": np.ones(2),
        "boundary": np.ones(2),
    }
    training = {"uncertainty_product": np.array([0.5])}
    assert regression._bounds(packet, channel, training).verdict == "supported"
    low = {"product": np.array([0.49])}
    assert regression._bounds(low, channel, training).verdict == "not supported"
    below = {**channel, "least_margin": np.array([-5.0])}
    assert regression._bounds(packet, below, training).verdict == "not supported"
