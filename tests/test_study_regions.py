"""The regions of a class: plane, radii and directions against known cases, verdicts, a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reproduced import reproduced
from torch import nn

import qwidgets as qw
from qwidgets.studies import regions
from qwidgets.studies.study import Setting, columns, comma_separated, finish
from qwidgets.sweep import one_core_spared


@pytest.fixture
def rng():
    return np.random.default_rng(4)


@pytest.fixture(scope="module")
def data():
    return qw.load_data("digits", train_size=300, test_size=100)


def test_the_plane_holds_the_means_of_three_classes(data):
    plane = regions.Plane(data, 8)
    inputs = data.train_inputs.flatten(1).double().numpy()
    means = np.stack([inputs[data.train_labels.numpy() == name].mean(0) for name in range(10)])
    away = np.linalg.norm(means - means[8], axis=1)
    assert set(plane.others) == set(np.argsort(away)[1:3].tolist())
    assert plane.axes @ plane.axes.T == pytest.approx(np.eye(2), abs=1e-12)
    for name in (8, *plane.others):
        there = plane.project(means[name][None])
        assert plane.images(there)[0] == pytest.approx(means[name])
    # What is across the plane is left out of a projection, and only that.
    image = inputs[:1]
    rest = image - plane.images(plane.project(image))
    assert plane.axes @ rest[0] == pytest.approx([0, 0], abs=1e-12)


def test_the_radius_is_that_of_the_normal_law(rng):
    points = 3 + rng.normal(size=(4000, 5)) * [1, 2, 2, 0, 4]
    assert regions.radius(points) == pytest.approx(5, rel=0.03)
    assert regions.radius(np.ones((4, 3))) == 0


def test_the_error_of_a_radius_is_what_repetitions_show(rng):
    repeated = [regions.radius(rng.normal(size=(60, 2))) for _ in range(300)]
    told = np.mean([regions._radius_error(rng.normal(size=(60, 2)), rng) for _ in range(30)])
    assert told == pytest.approx(np.std(repeated), rel=0.25)


def network(seed=0):
    generator = torch.Generator().manual_seed(seed)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for value in layers.parameters():
            value.copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64))
    return layers


def test_feature_directions_are_those_of_the_jacobian():
    net, generator = network(), torch.Generator().manual_seed(1)
    training = torch.rand(50, 1, 2, 3, generator=generator, dtype=torch.float64)
    images = training[:4]
    found = regions.feature_directions(net, images, training, 3)
    assert not images.requires_grad
    body = net[:-1]
    with torch.no_grad():
        leading = qw.principal_directions(body(training), 3)
    for image, rows in zip(images, found, strict=True):
        assert (rows @ rows.T).numpy() == pytest.approx(np.eye(3), abs=1e-9)
        jacobian = torch.autograd.functional.jacobian(lambda x: body(x[None])[0], image)
        pulled = torch.from_numpy(leading) @ jacobian.flatten(1)
        assert abs(rows[0] @ pulled[0]) == pytest.approx(float(pulled[0].norm()))
        # The span is the same.
        inside = pulled @ rows.T @ rows
        assert inside.numpy() == pytest.approx(pulled.numpy(), abs=1e-9)


def test_rows_within_the_span_of_others_are_zero():
    rows = torch.tensor([[[1.0, 0, 0], [2, 0, 0], [1, 1, 0]]], dtype=torch.float64)
    found = regions._orthonormalised(rows)[0]
    assert found.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_an_attack_stays_in_its_span_and_within_its_length():
    net, generator = network(2), torch.Generator().manual_seed(3)
    images = 0.3 + 0.4 * torch.rand(8, 1, 2, 3, generator=generator, dtype=torch.float64)
    labels = net(images).argmax(1)
    basis = torch.eye(6, dtype=torch.float64)[:2].expand(8, -1, -1)
    settings = {"value_range": (0.0, 1.0), "seed": 0}
    moved = regions.attacked_within(net, images, labels, basis, 0.25, **settings)
    change = (moved - images).flatten(1)
    assert (change.norm(dim=1) <= 0.25 + 1e-9).all()
    assert (change[:, 2:] == 0).all()
    loss = nn.functional.cross_entropy
    assert loss(net(moved), labels) > loss(net(images), labels)
    # More directions, all of the former among them, can only help; and the range is kept.
    whole = torch.eye(6, dtype=torch.float64).expand(8, -1, -1)
    far = regions.attacked_within(net, images, labels, whole, 3.0, **settings)
    assert far.min() >= 0
    assert far.max() <= 1
    near = regions.attacked_within(net, images, labels, whole, 0.25, **settings)
    assert loss(net(near), labels) > loss(net(moved), labels)


def test_directions_of_every_space_are_orthonormal(data):
    net = qw.build_model("mlp", data)
    images, labels = data.test_inputs[:5], data.test_labels[:5]
    found = regions.directions(net, data, images, labels, 4, seed=0)
    assert set(found) == set(regions.SPACES)
    for rows in found.values():
        assert rows.shape == (5, 4, 64)
        assert (rows @ rows.mT).numpy() == pytest.approx(np.stack([np.eye(4)] * 5), abs=1e-6)
    assert ((found["pixels"] == 0) | (found["pixels"] == 1)).all()


# Verdicts


def radii(**changes):
    """Make a table in which each named quantity grows by so much between two looks."""
    rows = []
    for seed in (0, 1, 2):
        for trained in regions.TRAINED:
            for step, epoch in enumerate((1, 21, 41)):
                row = {"seed": seed, "trained": trained, "epoch": epoch, "label": 0}
                row |= {"mean_moved": 0.5, "clean_seen_in_plane": 1, "attacked_seen_in_plane": 1}
                for name in ("clean_radius_plane", "clean_radius_input"):
                    row[name] = 1.0
                for name, change in changes.items():
                    row[name] = 0.5 + change * step + 0.001 * seed * step
                rows.append(row)
    return columns(rows)


def test_spreading_is_judged_between_all_three_epochs():
    wider = radii(attacked_radius_plane=0.1, attacked_radius_input=0.1)
    assert regions.spread(wider).verdict == "supported"
    narrower = radii(attacked_radius_plane=-0.1, attacked_radius_input=-0.1)
    assert regions.spread(narrower).verdict == "not supported"
    partly = regions.spread(radii(attacked_radius_plane=0.1, attacked_radius_input=-0.1))
    assert partly.verdict == "supported under a condition"
    assert "in the plane from epoch 1 to 21" in partly.condition.partition("Not for")[0]


def test_leaving_the_region_is_judged_by_both_kinds_of_points():
    assert regions.leave(radii(clean_in_class=0.1, attacked_in_class=-0.1)).verdict == "supported"
    both = radii(clean_in_class=0.1, attacked_in_class=0.1)
    assert regions.leave(both).verdict == "not supported"


def neighborhoods(position, momentum, product=4.0):
    c = radii(total_position_std=position, total_momentum_std=momentum)
    same = np.ones(len(c["seed"]))
    c |= {"product_of_totals": product * same, "sum_of_bounds": same, "mean_boundary": same}
    return c | {"product_of_totals_error": 0.1 * same, "sum_of_bounds_error": 0 * same}


def test_the_effective_radius_is_judged_by_both_spreads_and_by_the_bound():
    assert regions.shrinks(neighborhoods(-0.1, 0.1)).verdict == "supported"
    assert regions.shrinks(neighborhoods(0.1, 0.1)).verdict == "not supported"
    assert regions.shrinks(neighborhoods(-0.1, 0.1, product=0.2)).verdict == "not supported"


def attacks(features, pixels):
    level = dict.fromkeys(regions.SPACES, 0.1) | {"features": features, "pixels": pixels}
    return columns(
        [
            {
                "seed": seed,
                "trained": trained,
                "space": space,
                "directions": count,
                "length": 0.4,
                "broken": broken + 0.001 * seed * (space == "features"),
            }
            for seed in (0, 1, 2)
            for trained in regions.TRAINED
            for space, broken in {**level, "everything": 0.9}.items()
            for count in (1, 5)
        ]
    )


def test_attacks_and_momenta_are_judged_by_features_against_pixels():
    assert regions.stronger(attacks(0.5, 0.2)).verdict == "supported"
    assert regions.stronger(attacks(0.2, 0.5)).verdict == "not supported"
    c = attacks(2.5, 1.5)
    c["space"] = np.where(c["space"] == "everything", "gradient", c["space"])
    c |= {"momentum_std": c["broken"], "epoch": c["seed"] * 0 + 41}
    c |= {"least_product": np.full(len(c["seed"]), 0.5)}
    assert regions.carries(c).verdict == "supported"
    assert regions.carries(c | {"momentum_std": -c["broken"]}).verdict == "not supported"
    assert regions.carries(c | {"least_product": 0.4 + 0 * c["seed"]}).verdict == "not supported"


# The smallest run


@pytest.mark.slow
def test_regions_are_drawn_and_measured(tmp_path):
    tables, found = reproduced("regions", tmp_path)
    near = tables["neighborhoods"]
    error = np.hypot(near["product_of_totals_error"], near["sum_of_bounds_error"])
    assert (near["product_of_totals"] >= near["sum_of_bounds"] - 4 * error).all()
    assert (tables["momenta"]["least_product"] >= 0.5 - 1e-3).all()
    assert (tables["attacks"]["mean_length"] <= tables["attacks"]["length"] + 1e-9).all()
    of = tables["radii"]
    assert (of["clean_radius_plane"] < of["clean_radius_input"]).all()
    # The clean points are the same for all networks.
    for label in range(10):
        assert len(set(of["clean_radius_plane"][of["label"] == label])) == 1
    assert set(tables["plane"]["kind"]) == {"place", "clean", "attacked"}
    assert (np.abs(tables["plane"]["surplus"]) <= 1).all()
    assert len(found.claims) == 5
    # Another run of one seed, from the start, ends in the same tables.
    again = tmp_path / "again"
    again.mkdir()
    setting = Setting(size="smallest", seed=1, root=None, folder=again)
    for name in ("plane", "attacks"):
        with one_core_spared():
            table = comma_separated(finish(regions.STUDY.parts[name](setting)))
        assert table == (tmp_path / f"{name}.csv").read_text("utf-8")
