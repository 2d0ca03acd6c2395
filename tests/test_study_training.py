"""The study of training: trends judged by the seeds, and a run at its smallest."""

from __future__ import annotations

import numpy as np
import pytest
from reproduced import reproduced
from typer.testing import CliRunner

from qwidgets import cli, studies
from qwidgets.studies import training
from qwidgets.studies.study import Setting, columns

EPOCHS = np.arange(5)


def networks(**slopes):
    """Columns of three seeds of one network, clean: each quantity a line, a little apart."""
    seeds, epochs = np.repeat([0, 1, 2], 5), np.tile(EPOCHS, 3)
    c = {
        "data": np.full(15, "mnist"),
        "model": np.full(15, "mlp"),
        "training": np.full(15, "clean"),
        "seed": seeds,
        "epoch": epochs,
    }
    for trend in training.TRENDS:
        slope = slopes.get(trend.quantity, trend.sign)
        c[trend.quantity] = 5 + slope * epochs + 0.01 * seeds
    return c


def verdicts(c):
    trends = columns(training.judged(c))
    return {
        trend.quantity: training._trend(trend, "mnist", trends).verdict for trend in training.TRENDS
    }


def test_trends_are_judged_by_their_sign():
    assert set(verdicts(networks()).values()) == {"supported"}
    for trend in training.TRENDS:
        found = verdicts(networks(**{trend.quantity: -trend.sign}))
        assert found.pop(trend.quantity) == "not supported"
        assert set(found.values()) == {"supported"}
        # What stays where it is has no trend.
        assert verdicts(networks(**{trend.quantity: 0}))[trend.quantity] == "not supported"


def test_seeds_that_disagree_leave_a_trend_open():
    c = networks()
    last = c["seed"] == 2
    c["momentum_std"][last] = c["momentum_std"][last][::-1]
    row = next(row for row in training.judged(c) if row["quantity"] == "momentum_std")
    # Two seeds say +1, one -1: a mean of 1/3, and its error from these three numbers alone.
    assert row["correlation"] == pytest.approx(1 / 3)
    assert row["correlation_error"] == pytest.approx(2 / 3)
    assert row["low"] < 0 < row["high"]
    assert verdicts(c)["momentum_std"] == "not supported"


def test_a_trend_of_some_networks_is_a_condition():
    one, other = networks(), networks(robust_accuracy=+1)
    other["training"] = np.full(15, "adversarial")
    both = {name: np.concatenate([one[name], other[name]]) for name in one}
    trends = columns(training.judged(both))
    claim = training._trend(training.TRENDS[1], "mnist", trends)
    assert claim.verdict == "supported under a condition"
    assert claim.condition == "For clean training alone. The reverse: mlp, adversarial."


def test_the_interval_is_students():
    found = training.interval(np.array([1.0, 2.0, 3.0]))
    assert found.mean == 2
    assert found.error == pytest.approx(1 / np.sqrt(3))
    assert found.high - found.mean == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)


def test_the_sizes_train_what_the_paper_did(tmp_path):
    setting = Setting(size="full", seed=3, root=None, folder=tmp_path)
    every = training.cases(setting)
    assert {case.data for case in every} == {"mnist", "cifar10"}
    assert {case.model for case in every} == {"mlp", "conv", "resnet", "attention"}
    assert {case.seed for case in every} == {3, 4, 5, 6, 7}
    assert len(set(every)) == len(every)


@pytest.fixture(scope="module")
def smallest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return folder, *reproduced("training", folder)


@pytest.mark.slow
def test_its_tables_have_every_class_and_epoch(smallest):
    _, tables, found = smallest
    classes, nets, trends = (tables[name] for name in ("classes", "networks", "trends"))
    assert len(classes["label"]) == 10 * len(nets["epoch"]) == 10 * 2 * 2 * 2 * 3
    assert (classes["uncertainty_product"] >= 0.5 * (1 - 1e-3)).all()
    product = classes["Dx"] * classes["Dp"]
    error = product * np.hypot(
        classes["Dx_error"] / classes["Dx"], classes["Dp_error"] / classes["Dp"]
    )
    slack = 4 * np.hypot(error, classes["bound_error"])
    assert (product >= classes["bound"] - slack).all()
    for table in (classes, nets):
        assert (table["robust_accuracy"] <= table["clean_accuracy"] + 1e-12).all()
    assert set(trends["quantity"]) == {trend.quantity for trend in training.TRENDS}
    assert found.claims[-1].verdict == "supported"


@pytest.mark.slow
def test_a_run_again_finds_everything_and_writes_the_same(smallest, tmp_path):
    folder, *_ = smallest
    names = [f"{name}.csv" for name in training.STUDY.parts]
    before = {name: (folder / name).read_bytes() for name in names}
    # All tables are gone, the networks are there.
    for place in (folder / "parts").glob("*.json"):
        place.unlink()
    reproduced("training", folder)
    assert {name: (folder / name).read_bytes() for name in names} == before
    # Nothing is there at all, but the seed is the same.
    reproduced("training", tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == before


def test_missing_data_are_told_before_anything_is_done(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert not studies.lacking(studies.STUDIES["bounds"], None)
    arguments = ["reproduce", "training", "--root", str(empty), "-o", str(tmp_path / "out")]
    run = CliRunner().invoke(cli.app, arguments)
    assert run.exit_code == 2
    assert "data of the study 'training' are missing: root must hold the file train-" in run.output
    assert not (tmp_path / "out").exists()


def test_all_leaves_out_what_lacks_data(tmp_path, monkeypatch):
    done = []

    def run(study, *_args, **_settings):
        done.append(study.name)
        return studies.Conclusion((), {})

    monkeypatch.setattr(studies, "run", run)
    monkeypatch.setattr(
        studies, "lacking", lambda study, _root: "root must be given." if study.data else ""
    )
    found = CliRunner().invoke(cli.app, ["reproduce", "all", "-o", str(tmp_path / "out")])
    assert found.exit_code == 0
    assert "training is left out: root must be given." in found.output
    assert done == [name for name, study in studies.STUDIES.items() if not study.data]
