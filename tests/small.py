"""A small sweep of digits with every variable of a cube, trained once for the whole suite."""

from __future__ import annotations

import qwidgets as qw

EPSILON, REGULARIZATION, EPOCHS = [0, 0.1, 0.3], [0, 0.03, 0.3], 2


def small_sweep() -> qw.Sweep:
    return qw.sweep(
        epsilon=EPSILON,
        regularization=REGULARIZATION,
        epochs=EPOCHS,
        train_size=300,
        test_size=100,
        attack_steps=2,
        progress=False,
    )
