"""The trade-off: statistics against known cases, verdicts, the smallest run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reproduced import reproduced
from scipy.stats import spearmanr
from torch import nn

from qwidgets.studies import tradeoff
from qwidgets.studies.study import Setting, columns, comma_separated, finish, rank_correlation
from qwidgets.sweep import one_core_spared


def grid(x, y, *, flat=None, regularizer="gradient"):
    """Make a surface of S seeds and a square of P points from two of its quantities."""
    seeds, points = y.shape
    side = round(points**0.5)
    rows, fields = np.indices((side, side)).reshape(2, -1)
    values = {
        "product": x,
        "robust_accuracy": y,
        "flat": np.zeros((seeds, points)) if flat is None else flat,
    }
    return tradeoff.Surface(
        values, np.full(points, regularizer), 0.1 * rows, 0.1 * fields, (rows + fields) % 2
    )


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_rank_correlation_is_spearmans(rng):
    x, y = rng.normal(size=(2, 7, 20)).round(1)
    x[2, :5] = np.nan
    y[2, 3:9] = np.nan
    found = rank_correlation(x, y)
    for row in range(7):
        known = np.isfinite(x[row]) & np.isfinite(y[row])
        assert found[row] == pytest.approx(spearmanr(x[row][known], y[row][known])[0])
    assert np.isnan(rank_correlation(np.ones(9), np.arange(9.0)))
    assert np.isnan(rank_correlation(np.arange(3.0), np.arange(3.0)))


def test_a_correlation_within_groups_does_not_see_what_differs_between_them(rng):
    group = np.repeat(np.arange(6), 6)
    x = 10 * group + rng.normal(size=(3, 36))
    y = 10 * group + rng.normal(size=(3, 36))
    over = tradeoff.correlation(x, y, np.zeros(36), np.random.default_rng(0))
    inside = tradeoff.correlation(x, y, group, np.random.default_rng(0))
    assert over.low > 0.9
    assert inside.low < 0 < inside.high
    falls = tradeoff.correlation(x, -x, group, np.random.default_rng(0))
    assert falls == pytest.approx((-1, 0, -1, -1))
    assert tradeoff.correlation(x, np.ones_like(x), group, np.random.default_rng(0)) is None


def test_the_interval_covers_the_truth_about_as_often_as_it_says(rng):
    inside = 0
    for _ in range(60):
        x, y = rng.normal(size=(2, 2, 36))
        found = tradeoff.correlation(x, y, np.zeros(36), rng)
        inside += found.low <= 0 <= found.high
    assert inside >= 48


def test_held_out_networks_have_no_part_in_the_fit(rng):
    x = rng.uniform(size=(3, 36))
    y = np.sqrt(x)
    surface = grid(x, y)
    predicted = tradeoff.held_out(surface, surface, "product", "robust_accuracy", "points")
    assert (tradeoff.explained(y, predicted) > 0.95).all()
    # What a network has itself does not reach its prediction; nor do its seed and its field.
    changed = y.copy()
    mine = surface.field == surface.field[0]
    changed[0] = 7
    changed[:, mine] = 7
    again = tradeoff.held_out(
        grid(x, changed), grid(x, changed), "product", "robust_accuracy", "points"
    )
    assert np.array_equal(again[0, mine], predicted[0, mine])
    # A number that says nothing predicts no better than the mean.
    noise = grid(rng.uniform(size=(3, 36)), y)
    blind = tradeoff.held_out(noise, noise, "product", "robust_accuracy", "points")
    assert (tradeoff.explained(y, blind) < 0.3).all()


def test_other_regularizers_are_predicted_from_foreign_networks_alone(rng):
    x = rng.uniform(size=(2, 16))
    own, foreign = grid(x, x), grid(x, 1 - x, regularizer="weight_decay")
    predicted = tradeoff.held_out(own, foreign, "product", "robust_accuracy", "regularizers")
    known = own.regularization > 0
    assert np.isnan(predicted[:, ~known]).all()
    # Rising here, falling there: the fit is that of the others.
    assert (rank_correlation(predicted, x) < -0.9).all()


def test_flat_networks_are_left_out():
    flat = np.zeros((2, 4))
    flat[1, 2] = 1
    some = grid(np.ones((2, 4)), np.ones((2, 4)), flat=flat).under("not flat")
    assert some.count == 7
    assert np.isnan(some.values["product"][1, 2])


def test_a_linear_network_is_measured_exactly():
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0, 2, 0], [0, 0, -1, 0.5]]))
        layer.bias.zero_()
    network = nn.Sequential(nn.Flatten(), layer)
    x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    found = tradeoff.without_attack(network, x, y, radius=0.1, value_range=(0, 1), seed=0)
    margin = 1.5 - (-0.25)
    chance = 1 / (1 + np.exp(margin))
    assert found["margin"][0] == pytest.approx(margin)
    assert found["gradient_norm"][0] == pytest.approx(chance * np.sqrt(1 + 9 + 0.25))
    assert found["linear_distance"][0] == pytest.approx(margin / 4.5)
    assert found["gradient_correlation"][0] == pytest.approx(1)
    with torch.no_grad():
        layer.weight.zero_()
    found = tradeoff.without_attack(network, x, y, radius=0.1, value_range=(0, 1), seed=0)
    assert {name: float(v[0]) for name, v in found.items()} == {
        "margin": 0,
        "gradient_norm": 0,
        "linear_distance": 1,
        "gradient_correlation": 1,
    }


# Verdicts


def correlations(**changed):
    rows = [
        {
            "data": "digits",
            "regularizer": regularizer,
            "condition": condition,
            "scope": "surface",
            "first": "momentum_std",
            "second": "fragility",
            "networks": 30,
            "correlation": 0.8,
            "correlation_error": 0.05,
            "low": 0.6,
            "high": 0.9,
        }
        for regularizer in tradeoff.REGULARIZERS
        for condition in tradeoff.CONDITIONS
    ]
    found = columns(rows)
    for name, values in changed.items():
        found[name] = np.where(found["condition"] == "all", values[0], values[1])
    return found


def test_fragility_is_judged_by_sign_and_interval():
    assert tradeoff.fragile(correlations()).verdict == "supported"
    opposite = correlations(correlation=(-0.8, -0.8), low=(-0.9, -0.9), high=(-0.6, -0.6))
    assert tradeoff.fragile(opposite).verdict == "not supported"
    collapsed = tradeoff.fragile(correlations(correlation=(0.1, 0.8), low=(-0.3, 0.6)))
    assert collapsed.verdict == "supported under a condition"
    assert collapsed.condition.startswith("Without flat networks")
    along = correlations()
    turned = {name: values.copy() for name, values in along.items()}
    turned["scope"] = np.full_like(turned["scope"], "fixed radius", dtype="<U12")
    turned |= {"correlation": -turned["correlation"], "low": -turned["high"]}
    turned |= {"high": -along["low"]}
    both = {name: np.concatenate([along[name], turned[name]]) for name in along}
    partly = tradeoff.fragile(both)
    assert partly.verdict == "supported under a condition"
    assert "weight decay, fixed radius" in partly.condition
    noisy = correlations(correlation_error=(0.3, 0.3))
    assert tradeoff.fragile(noisy).verdict == "not supported"


def predictions(lead, r2=0.6):
    return columns(
        [
            {
                "data": "digits",
                "regularizer": regularizer,
                "condition": condition,
                "split": split,
                "target": target,
                "predictor": predictor,
                "r2": r2,
                "r2_error": 0.05,
                "r2_low": r2 - 0.1,
                "r2_high": r2 + 0.1,
                "miss": 0.05,
                "product_leads_low": lead - 0.1,
                "product_leads_high": lead + 0.1,
            }
            for regularizer in tradeoff.REGULARIZERS
            for condition in tradeoff.CONDITIONS
            for split in tradeoff.SPLITS
            for target in tradeoff.TARGETS
            for predictor in tradeoff.PREDICTORS
        ]
    )


def test_prediction_is_judged_by_what_is_explained_and_by_the_lead():
    assert tradeoff.foretold(predictions(0)).verdict == "supported"
    assert tradeoff.foretold(predictions(0, r2=-0.5)).verdict == "not supported"
    assert tradeoff.better(predictions(0.3)).verdict == "supported"
    assert tradeoff.better(predictions(-0.3)).verdict == "not supported"
    mixed = predictions(0.3)
    margins = mixed["predictor"] == "margin"
    mixed["product_leads_low"] = np.where(margins, -0.1, mixed["product_leads_low"])
    partly = tradeoff.better(mixed)
    assert partly.verdict == "supported under a condition"
    assert "margin" not in partly.condition


def test_the_trade_off_is_judged_on_seeds_that_did_not_choose(rng):
    way = np.linspace(0, 1, 9)
    noise = 0.002 * rng.normal(size=(2, 4, 9))
    values = {"clean_accuracy": 0.9 - 0.2 * way + noise[0]}
    values |= {"robust_accuracy": 0.5 + 0.3 * way + noise[1]}
    values |= {"robust_accuracy_far": 0.3 + 0.3 * way + noise[1]}
    surface = grid(noise[1], noise[1])
    surface.values.update(values)
    assert tradeoff.trade({"digits": {"gradient": surface}}).verdict == "supported"
    surface.values.update(clean_accuracy=0.9 + 0.2 * way + noise[0])
    assert tradeoff.trade({"digits": {"gradient": surface}}).verdict == "not supported"


# The smallest run


@pytest.mark.slow
def test_the_surfaces_are_measured(tmp_path):
    tables, found = reproduced("tradeoff", tmp_path)
    network = tables["networks"]
    assert len(network["seed"]) == 2 * 3 * 9
    assert (network["product"] >= 0.5 - 4 * network["product_error"] - 1e-9).all()
    assert (network["robust_accuracy"] <= network["clean_accuracy"]).all()
    assert ((network["fragility"] >= 0) & (network["fragility"] <= 1)).all()
    assert (np.abs(network["gradient_correlation"]) <= 1 + 1e-9).all()
    for table in ("correlations", "predictions"):
        assert set(tables[table]["regularizer"]) >= set(tradeoff.REGULARIZERS)
    assert (tables["predictions"]["r2"] <= 1).all()
    both = tables["correlations"]["second"] == "position_std"
    assert (tables["correlations"]["correlation"][both] < 0).all()
    assert len(found.claims) == 5
    # One seed gives one table: measured again from the same networks, and analysed again.
    setting = Setting(size="smallest", seed=1, root=None, folder=tmp_path / "parts")
    with one_core_spared():
        again = finish(tradeoff.networks(setting))
    assert comma_separated(again) == (tmp_path / "networks.csv").read_text("utf-8")
    for name, analysis in tradeoff.STUDY.analyses.items():
        found_again = finish(analysis(setting, {"networks": again}))
        assert comma_separated(found_again) == (tmp_path / f"{name}.csv").read_text("utf-8")
    # Nothing but flat networks: what can still be said is said.
    flat = {"networks": [{**row, "flat": 1} for row in again]}
    for name, analysis in tradeoff.STUDY.analyses.items():
        flat[name] = finish(analysis(setting, flat))
    left = tradeoff.conclude(flat)
    assert "all networks: Pareto fronts" in left.figures["tradeoff"].svg
