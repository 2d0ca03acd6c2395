"""Plans: samples go where the packet is, and stay unbiased samples of the domain."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from qwidgets.domain import Box, Gaussian, Neighborhood
from qwidgets.proposal import make_plan


def planned(loss, domain, samples=8192, sampler="uniform"):
    return make_plan(loss, domain, samples=samples, sampler=sampler, seeds=[11, 12, 13])


def effective_share(loss, sample):
    weight = sample.weight * loss(sample.x) ** 2
    return float(weight.sum() ** 2 / (weight**2).sum() / len(weight))


def ridge(x):
    return softplus(12 * (x.sum(1) / math.sqrt(x.shape[1]) - 0.3))


def corner(x):
    return (12 * (x - 1)).sum(1).exp()


CASES = [
    (ridge, Gaussian([0.0, 0.1, -0.1], 0.4)),
    (lambda x: (4 * x[:, 0]).exp() + (-4 * x[:, 0]).exp(), Gaussian([0.0, 0.0], 1.0)),
    (corner, Box([0, 0, 0], [1, 1, 1])),
    (ridge, Box([-1, -1], [1, 2])),
    (ridge, Neighborhood(np.random.default_rng(0).normal(size=(40, 3)), 0.2)),
    (ridge, Neighborhood(np.random.default_rng(0).random((40, 3)), 0.2, clip=(0, 1))),
]
IDS = ["ridge", "two far packets", "corner", "ridge in a box", "balls", "clipped balls"]


@pytest.mark.parametrize(("loss", "domain"), CASES, ids=IDS)
@pytest.mark.parametrize("sampler", ["sobol", "uniform"])
def test_planned_samples_have_the_weights_of_the_domain(loss, domain, sampler):
    # Means of functions that are spread over the domain: no plan may change them.
    plan = planned(loss, domain, sampler=sampler)
    sample = plan.stream(5)(1 << 16)
    exact = domain.sample(
        torch.rand(
            1 << 17,
            domain.cube_dimension,
            dtype=torch.float64,
            generator=torch.Generator().manual_seed(3),
        )
    )
    for function in (
        lambda x: torch.ones(len(x), dtype=torch.float64),
        lambda x: x[:, 0],
        lambda x: (x[:, 1] * 2).sin() * x[:, 0] ** 2,
    ):
        values, truth = sample.weight * function(sample.x), function(exact.x)
        error = math.hypot(
            float(values.std()) / math.sqrt(len(values)), float(truth.std()) / math.sqrt(len(truth))
        )
        assert abs(float(values.mean() - truth.mean())) <= 5 * error + 1e-12


@pytest.mark.parametrize(
    ("loss", "domain", "least", "plain"),
    [
        (CASES[0][0], Gaussian(np.zeros(50), 0.4), 0.4, 0.2),
        (CASES[1][0], CASES[1][1], 0.05, 0.01),
        (lambda x: (4 * x[:, 0]).exp(), Gaussian(np.zeros(20), 1.0), 0.2, 0.01),
        (CASES[2][0], CASES[2][1], 0.3, 0.01),
        (CASES[4][0], CASES[4][1], 0.5, 0.45),
    ],
    ids=["ridge", "two far packets", "far packet", "corner", "balls"],
)
def test_planned_samples_reach_the_packet(loss, domain, least, plain):
    cube = torch.rand(
        1 << 14,
        domain.cube_dimension,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(3),
    )
    assert effective_share(loss, domain.sample(cube)) < plain
    assert effective_share(loss, planned(loss, domain).stream(5)(1 << 14)) > least


def test_a_flat_loss_keeps_the_window():
    plan = planned(lambda x: torch.ones(len(x)), Gaussian(np.zeros(5), 1))
    assert (plan.stream(0)(100).weight == 1).all()


def test_even_points_stay_where_the_packet_is_spread():
    plan = planned(lambda x: 1 + x[:, 0], Box(np.zeros(5), 1))
    assert (plan.stream(0)(100).weight == 1).all()
    # The first step of the pilot has shown it.
    assert plan.evaluations == 8192 // 16 // 4


def test_few_samples_have_no_pilot():
    for domain in (Box(0, 1), Gaussian(0, 1), Neighborhood(np.zeros((400, 1)), 1)):
        plan = planned(lambda x: 1 + x[:, 0] ** 2, domain, samples=512)
        assert plan.evaluations == 0
        assert plan.balls is None


def test_balls_get_samples_in_proportion_to_the_packet_and_all_some():
    centers = torch.tensor([[0.0], [1.0], [3.0]])
    plan = planned(lambda x: x[:, 0] ** 2 + 1e-3, Neighborhood(centers, 0.01), sampler="sobol")
    probability = plan.balls.probability
    assert probability.sum() == pytest.approx(1)
    # Half for l^2, 0 : 1 : 81; half for l'^2, 0 : 1 : 9; a tenth for all alike.
    wanted = 0.9 * (torch.tensor([0, 1, 81]) / 82 + torch.tensor([0, 1, 9]) / 10) / 2 + 0.1 / 3
    np.testing.assert_allclose(probability, wanted, rtol=0.01)
    sample = plan.stream(0)(4096)
    counts = torch.bincount(sample.ball) / 4096
    np.testing.assert_allclose(counts, probability, atol=2 / 4096)
    np.testing.assert_allclose(sample.weight, 1 / (3 * probability[sample.ball]))


def test_samples_in_balls_come_in_antithetic_pairs():
    plan = planned(
        lambda x: 1 + x[:, 0], Neighborhood(np.random.default_rng(0).random((9, 4)), 0.1)
    )
    sample = plan.stream(0)(64)
    u = sample.x - sample.middle
    torch.testing.assert_close(u[:32], -u[32:])
    assert torch.equal(sample.ball[:32], sample.ball[32:])
    assert len(plan.stream(0)(7).x) == 7


def test_labels_share_a_plan():
    def loss(x):
        return torch.stack([(6 * (x[:, 0] - 1)).exp(), (-6 * x[:, 0]).exp()], 1)

    plan = planned(loss, Neighborhood(np.linspace(0, 1, 21)[:, None], 0.02))
    share = plan.balls.probability
    np.testing.assert_allclose(share, share.flip(0), rtol=1e-6)
    assert share[0] > 3 * share[10]


def test_the_scale_of_the_loss_does_not_matter():
    domain = Neighborhood(np.random.default_rng(0).random((9, 4)), 0.1)
    one, tiny, huge = (
        planned(lambda x, s=s: s * (1 + x[:, 0]), domain).balls.probability
        for s in (1.0, 1e-200, 1e200)
    )
    torch.testing.assert_close(one, tiny)
    torch.testing.assert_close(one, huge)
