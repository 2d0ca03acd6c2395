"""The studies: exact values, verdicts that follow from numbers, and runs that go on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from reproduced import reproduced
from typer.testing import CliRunner

import qwidgets as qw
from qwidgets import cli, studies
from qwidgets.studies import binary, bounds
from qwidgets.studies.study import (
    Claim,
    Conclusion,
    Setting,
    Study,
    columns,
    comma_separated,
    finish,
    iterate_study,
    measured,
    trained,
)


@pytest.fixture
def setting(tmp_path):
    return Setting(size="quick", seed=3, root=None, folder=tmp_path)


# Exact values


@pytest.mark.parametrize(
    ("loss", "product", "boundary"),
    [
        ("constant", 0, 1),
        ("exp(-3 x)", 0, 1),
        ("x", 0.167705, 3 / 4),
        ("abs(sin(pi x))", 0.567862, 0),
        ("abs(sin(2 pi x))", 1.670290, 0),
        ("1 + 0.3 sin(6 x)", 0.319773, 0.860289),
    ],
)
def test_boxes_are_integrated_to_the_values_of_the_theory(loss, product, boundary):
    exact = bounds.by_quadrature(bounds.BOXES[loss])
    assert exact.position_std * exact.momentum_std == pytest.approx(product, abs=6e-7)
    assert exact.faces == pytest.approx(boundary, abs=6e-7)
    assert exact.faces == pytest.approx(1 + 2 * exact.covariance, abs=1e-9)


@pytest.mark.parametrize(
    ("sharpness", "position", "momentum"),
    [(1, 0.481148, 1.039186), (4, 0.381582, 1.322036), (16, 0.338798, 1.615038)],
)
def test_boundaries_are_integrated_to_the_values_of_the_theory(sharpness, position, momentum):
    exact = binary.by_quadrature(sharpness, 0.5)
    assert exact.position_std == pytest.approx(position, abs=6e-7)
    assert exact.momentum_std == pytest.approx(momentum, abs=6e-7)


def test_a_boundary_tends_to_the_ramp():
    exact = binary.by_quadrature(1e5, 0.5)
    assert exact.position_std == pytest.approx(binary.LIMIT_POSITION, rel=1e-4)
    assert exact.momentum_std == pytest.approx(binary.LIMIT_MOMENTUM, rel=1e-3)
    assert (
        pytest.approx(math.sqrt(3) / 2 * math.sqrt(3 - 8 / math.pi))
        == binary.LIMIT_POSITION * binary.LIMIT_MOMENTUM
    )


def test_the_family_has_the_closed_form_of_its_boundary(setting):
    for row in finish(bounds.family(setting)):
        assert row["boundary"] == pytest.approx(row["boundary_closed_form"], abs=1e-9)
        assert row["product"] >= row["bound"] - 1e-12


def test_estimates_agree_with_exact_integration(setting):
    for row in finish(bounds.boxes(setting)):
        for name in ("product", "boundary", "bound"):
            assert abs(row[name] - row[f"exact_{name}"]) <= 4 * row[f"{name}_error"], (row, name)
    for row in finish(bounds.sums(setting)):
        for name in ("position", "momentum"):
            error = row[f"total_{name}_std_error"]
            assert abs(row[f"total_{name}_std"] - row[f"exact_{name}"]) <= 4 * error
    for row in finish(binary.plane(setting)):
        if row["boundary"] == "straight":
            for name in ("position_std", "momentum_std"):
                miss = abs(row[name] - row[f"straight_{name}"])
                assert miss <= 4 * row[f"{name}_error"] + 1e-9


def test_one_seed_gives_one_table(setting):
    assert comma_separated(finish(bounds.sums(setting))) == comma_separated(
        finish(bounds.sums(setting))
    )
    other = replace(setting, seed=4)
    assert comma_separated(finish(bounds.sums(setting))) != comma_separated(
        finish(bounds.sums(other))
    )


# Verdicts


def test_verdicts_follow_from_the_numbers(setting):
    tables = {"boxes": finish(bounds.boxes(setting)), "windows": finish(bounds.windows(setting))}
    box, window = (columns(tables[name]) for name in ("boxes", "windows"))
    network = {
        "pixels_below_half": np.array([64]),
        "pixels": np.array([64]),
        "least_product_along_attack": np.array([0.6]),
    }
    assert bounds._one_half(box, window, network).verdict == "supported under a condition"
    # A packet without boundary below 1/2 would refute it ...
    broken = {**box, "product": np.full_like(box["product"], 0.3)}
    assert bounds._one_half(broken, window, network).verdict == "not supported"
    # ... as would one through a window; and if no box were below, there would be no condition.
    narrow = {**window, "product": window["product"] - 0.1}
    assert bounds._one_half(box, narrow, network).verdict == "not supported"
    high = {**box, "product": np.full_like(box["product"], 0.9)}
    assert bounds._one_half(high, window, network).verdict == "supported"
    assert bounds._equality(box, window).verdict == "supported"
    swapped = {**window, "gaussian": 1 - window["gaussian"]}
    assert bounds._equality(box, swapped).verdict == "not supported"


def test_learning_is_judged_by_its_signs():
    epochs = np.tile(np.arange(5), 2)
    c = {
        "seed": np.repeat([0, 1], 5),
        "accuracy": 0.5 + 0.1 * epochs,
        "test_loss": 1 - 0.1 * epochs,
        "momentum_std": 1 + 0.2 * epochs,
        "position_std": 0.5 - 0.05 * epochs,
        "uncertainty_product": np.full(10, 0.51),
    }
    assert binary._learning(c).verdict == "supported"
    assert binary._learning({**c, "momentum_std": 1 - 0.1 * epochs}).verdict == "not supported"


# Runs


def toy(calls, interrupt):
    def first(setting):
        calls.append("first")
        yield 0.5
        return [{"x": float(setting.seed), "y": 1 / 3}]

    def second(setting):
        calls.append("second")
        if interrupt:
            interrupt.pop()
            raise KeyboardInterrupt
        u = yield from measured(
            lambda x: 1 + x[:, 0] ** 2, qw.Box(0, 1), samples=256, seed=setting.seed
        )
        return [{"product": float(u.product[0])}]

    def networks(setting):
        return trained(
            epsilon=[0],
            regularization=[0],
            epochs=1,
            train_size=100,
            detail=None,
            store=setting.folder / "toy.sweep",
        )

    def conclude(tables):
        claim = Claim("It runs.", f"x = {tables['first'][0]['x']}", "supported")
        return Conclusion((claim,), {"toy": qw.chart({"a": ([0, 1], [0, 1])}, x="x", y="y")})

    parts = {"first": first, "second": second}
    return Study(
        name="toy",
        title="A toy",
        source="Nobody.",
        cost="nothing",
        parts=parts,
        conclude=conclude,
        networks=networks,
    )


def test_an_interrupted_run_goes_on_and_ends_as_one_run(tmp_path, setting):
    calls = []
    output, parts = tmp_path / "a", tmp_path / "a-parts"
    output.mkdir()
    parts.mkdir()
    setting = replace(setting, folder=parts)
    with pytest.raises(KeyboardInterrupt):
        list(iterate_study(toy(calls, [True]), setting, output))
    *_, last = iterate_study(toy(calls, []), setting, output)
    assert calls == ["first", "second", "second"]
    assert last.conclusion is not None
    whole, whole_parts = tmp_path / "b", tmp_path / "b-parts"
    whole.mkdir()
    whole_parts.mkdir()
    list(iterate_study(toy([], []), replace(setting, folder=whole_parts), whole))
    names = {"first.csv", "second.csv", "toy.svg", "explorer.html", "report.md"}
    assert {path.name for path in output.iterdir()} == names
    for name in names - {"explorer.html"}:
        assert (output / name).read_bytes() == (whole / name).read_bytes()
    assert (output / "first.csv").read_text("utf-8") == "x,y\n3,0.3333333333\n"
    report = (output / "report.md").read_text("utf-8")
    assert "**Supported.**" in report
    assert "qwidgets reproduce toy --quick --seed 3" in report


def test_tables_that_follow_from_others_are_made_of_them(tmp_path, setting):
    def doubled(asked, tables):
        yield 0.5
        return [{"twice": 2 * tables["first"][0]["x"], "seed": asked.seed}]

    study = replace(toy([], []), analyses={"doubled": doubled})
    assert study.tables == ["first", "second", "doubled"]
    list(iterate_study(study, setting, tmp_path))
    assert (tmp_path / "doubled.csv").read_text("utf-8") == "twice,seed\n6,3\n"
    assert "doubled.csv" in (tmp_path / "report.md").read_text("utf-8")


def test_another_seed_or_a_damaged_part_is_done_again(tmp_path, setting):
    calls = []
    list(iterate_study(toy(calls, []), setting, tmp_path))
    (setting.folder / "second.json").write_text("{", "utf-8")
    list(iterate_study(toy(calls, []), setting, tmp_path))
    assert calls == ["first", "second", "second"]
    # So are parts of a run with files of one's own, which may be other data.
    list(iterate_study(toy(calls, []), replace(setting, root=tmp_path), tmp_path))
    assert calls[3:] == ["first", "second"]
    assert "--quick --root DIR --seed 3" in (tmp_path / "report.md").read_text("utf-8")


def test_an_interrupted_estimate_is_no_table():
    seen = []

    def loss(x):
        seen.append(len(x))
        if len(seen) > 3:
            raise KeyboardInterrupt
        return 1 + x[:, 0] ** 2

    with pytest.raises(KeyboardInterrupt):
        finish(measured(loss, qw.Box(0, 1), samples=1 << 16))


# Smallest runs


@pytest.mark.slow
def test_bounds_hold(tmp_path):
    tables, found = reproduced("bounds", tmp_path)
    assert min(tables["windows"]["product"]) >= 0.5 - 1e-9
    network = tables["networks"]
    for above, below in (
        ("product_of_totals", "sum_of_products"),
        ("sum_of_products", "sum_of_bounds"),
    ):
        assert (network[above] >= network[below] - 1e-12).all()
    assert found.claims[0].verdict == "supported"
    assert found.claims[1].verdict == "supported under a condition"


@pytest.mark.slow
def test_two_classes_trade_position_for_momentum(tmp_path):
    tables, found = reproduced("binary", tmp_path)
    line = tables["line"]
    assert min(line["product"]) >= 0.5 - 1e-9
    assert found.claims[0].verdict == "supported"
    sharpest = line["true_sharpness"] == 160
    assert np.mean(line["momentum_std"][sharpest]) > 1 / (2 * binary.LINE_WIDTH)


# The command


def test_unknown_studies_are_refused_with_the_nearest_name():
    run = CliRunner().invoke(cli.app, ["reproduce", "bonds"])
    assert run.exit_code == 2
    assert "did you mean 'bounds'" in run.output


def test_a_file_cannot_be_the_output(tmp_path):
    (tmp_path / "file").touch()
    run = CliRunner().invoke(cli.app, ["reproduce", "bounds", "-o", str(tmp_path / "file")])
    assert run.exit_code == 2


def test_the_command_lists_the_studies():
    run = CliRunner().invoke(cli.app, ["reproduce", "--help"])
    for name in studies.STUDIES:
        assert name in run.output
