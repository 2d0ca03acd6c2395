"""The study of training: runs, what is kept of them, and verdicts that follow from numbers."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest
from reproduced import reproduced

from qwidgets.studies import training
from qwidgets.studies.study import Setting, columns, comma_separated, finish

COLUMNS = {
    "data", "model", "training", "seed", "epoch", "label",
    *(
        f"{name}{error}"
        for name in (
            "clean_accuracy", "robust_accuracy", "class_clean_accuracy", "class_robust_accuracy",
            "position_std", "momentum_std", "uncertainty_product",
            "effective_position", "effective_momentum", "bound", "boundary",
        )
        for error in ("", "_error")
    ),
}  # fmt: skip


@pytest.mark.slow
def test_smallest_run(tmp_path):
    tables, found = reproduced("training", tmp_path)
    assert set(tables) == set(training.MODELS)
    for table in tables.values():
        assert set(table) == COLUMNS
        assert (table["uncertainty_product"] >= 0.5).all()
        product = table["effective_position"] * table["effective_momentum"]
        assert (product >= table["bound"] - 1e-9).all()
        for name in ("clean", "robust"):
            assert ((table[f"{name}_accuracy"] >= 0) & (table[f"{name}_accuracy"] <= 1)).all()
        assert (table["class_robust_accuracy"] <= table["class_clean_accuracy"]).all()
    bound = next(claim for claim in found.claims if "uncertainty relation" in claim.text)
    assert bound.verdict == "supported"


@pytest.fixture
def setting(tmp_path):
    return Setting(size="smallest", seed=4, root=None, folder=tmp_path)


def test_what_was_measured_is_kept_and_what_is_lost_is_measured_again(setting, monkeypatch):
    def table():
        return comma_separated(finish(training._followed(setting, "digits", "mlp", 4)))

    whole = table()
    measuring = training._measured
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return measuring(*arguments)

    monkeypatch.setattr(training, "_measured", counted)
    assert table() == whole
    assert not [call for call in calls if call is None]
    # The rows of an epoch whose networks are gone: the training begins again.
    (setting.folder / "training-digits-mlp-4-1.json").unlink()
    assert table() == whole
    # Rows without their networks are the same rows.
    shutil.rmtree(setting.folder / "digits-mlp-4.sweep")
    assert table() == whole


def test_another_seed_is_another_table(setting):
    one, other = (finish(training._followed(setting, "digits", "mlp", seed)) for seed in (4, 5))
    assert comma_separated(one) != comma_separated(other)


def rows(change):
    """Numbers of three seeds and three epochs; `change` says by how much each quantity moves."""
    table = []
    for kind, seed, epoch in itertools.product(training.TRAININGS, range(3), range(3)):
        moved = epoch * (1 + 0.01 * seed)
        table.append(
            {
                "data": "mnist",
                "model": "mlp",
                "training": kind,
                "seed": seed,
                "epoch": epoch,
                "label": 3,
                "clean_accuracy": 0.5 + 0.1 * moved,
                "robust_accuracy": 0.4,
                "momentum_std": 1 + change.get(kind, 0) * moved,
                "position_std": 0.5 - 0.1 * change.get(kind, 0) * moved,
            }
        )
    return columns(table)


@pytest.mark.parametrize(
    ("change", "verdict", "condition"),
    [
        ({"clean": 0.2, "adversarial": 0.1}, "supported", ""),
        ({"clean": 0.2, "adversarial": -0.1}, "supported under a condition", "clean training only"),
        ({"clean": -0.2, "adversarial": -0.1}, "not supported", ""),
    ],
)
def test_trends_follow_from_the_numbers(change, verdict, condition):
    claim = training._trend(rows(change), "momentum_std", +1, "It rises.", "momentum")
    assert claim.verdict == verdict
    assert condition in claim.condition


def test_a_trend_within_the_spread_of_the_seeds_is_none():
    c = rows({})
    c["momentum_std"] = c["momentum_std"] + np.where(c["seed"] == 0, -1, 1) * 0.1 * c["epoch"]
    claim = training._trend(c, "momentum_std", +1, "It rises.", "momentum")
    assert claim.verdict == "not supported"


def test_fragility_is_the_broken_share_of_what_was_right():
    c = rows({})
    found = training.by_epoch(c, training.Group("mnist", "mlp", "clean"), "fragility")
    assert found[0, 0] == pytest.approx(1 - 0.4 / 0.5)


def test_adversarial_training_is_judged_against_clean_training():
    assert (
        training._adversarial(rows({"clean": 0.2, "adversarial": 0.1})).verdict == "not supported"
    )
    c = rows({"clean": 0.2, "adversarial": 0.1})
    c["robust_accuracy"] = np.where(c["training"] == "clean", 0.1, 0.4)
    assert training._adversarial(c).verdict == "supported"
    c["robust_accuracy"] = np.where(c["training"] == "clean", 0.4, 0.1)
    assert training._adversarial(c).verdict == "not supported"
