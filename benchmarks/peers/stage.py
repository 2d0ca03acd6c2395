"""What every peer shows in its two panels, and training in a worker thread meanwhile.

The numbers are smooth stand-ins of the Explorer's size and shape. A peer only looks them up: what
is measured is how a new slider position reaches the screen.
"""

from __future__ import annotations

import threading

import numpy as np

STEPS = 64
EPOCHS = 20
WIDTH, HEIGHT = 480, 360
NAMES = ("train loss", "test loss", "clean accuracy", "robust accuracy")
POSITION_LIMITS = (0.2, 0.6)
MOMENTUM_LIMITS = (0.8, 2.5)
CURVE_LIMITS = (0.0, 2.5)

epoch = np.arange(EPOCHS, dtype=np.float32)
_level = np.linspace(0, 1, STEPS, dtype=np.float32)[:, None]
_sharpness = (1 - _level) * (1 - np.exp(-epoch / 5))

bound_position = np.geomspace(0.2, 0.6, 100).astype(np.float32)
bound_momentum = 0.5 / bound_position
# One row a slider position, one column an epoch.
position = 0.5 - 0.22 * _sharpness
momentum = 0.5 / position * (1 + 0.1 * _sharpness)
# One row a slider position, then one a curve.
curves = np.stack(
    [
        1.2 + _level - _sharpness,
        1.3 + _level - 0.9 * _sharpness,
        0.7 * _sharpness + 0.1 + 0.1 * _level,
        0.5 * _sharpness + 0.1 + 0.3 * _level,
    ],
    axis=1,
).astype(np.float32)


class Training:
    """The default sweep of the real engine, in a thread of its own.

    Attributes
    ----------
    units
        Pieces of work done so far.
    """

    def __init__(self) -> None:
        self.units = 0
        self._giving_way = True
        self._error: BaseException | None = None
        self._under_way = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self, *, giving_way: bool = True) -> None:
        """Train, and return once the networks are being trained, not only set up.

        With ``giving_way`` as the Explorer's own worker does, else as `qw.sweep` in a thread.
        """
        self._giving_way = giving_way
        self._thread.start()
        self._under_way.wait()
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            self._train()
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._under_way.set()

    def _train(self) -> None:
        import qwidgets as qw
        from qwidgets.sweep import one_core_spared
        from qwidgets.widgets.runner import giving_way

        with giving_way() if self._giving_way else one_core_spared():
            for progress in qw.iterate_sweep(epochs=1000):
                self.units += 1
                if progress.epoch > 0:
                    self._under_way.set()


training = Training()
