"""The Explorer: two sliders, and the uncertainty of real trained networks redraws at once."""

from __future__ import annotations

import math
import threading
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import traitlets as tl
from ipywidgets import widget_serialization

from qwidgets import views
from qwidgets.widgets.cells import supersede
from qwidgets.widgets.panels import Panels
from qwidgets.widgets.problems import OffTheGridError, ProblemsShown
from qwidgets.widgets.runner import Phase, Runner
from qwidgets.widgets.saved import standstill

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from qwidgets.sweep import Progress, Sweep

_HEADING = {
    "title": views.TITLE,
    "subtitle": "",
    "regularizer": "strength of the regularizer",
}


def _static(name: str) -> str:
    file = files("qwidgets") / "static" / name
    if not file.is_file():
        message = (
            f"the front-end part qwidgets/static/{name} is missing: this source tree was not built;"
            " install it with 'make install' or 'pip install .'."
        )
        raise FileNotFoundError(message)
    return file.read_text("utf-8")


class Explorer(ProblemsShown):
    """Move adversarial radius and regularization; see position-momentum uncertainty redraw.

    Without arguments a default grid of networks on digits is trained in the background; the
    Explorer can be used from the first finished epoch on. Moves of the sliders are drawn in the
    browser alone: they never wait for the kernel, also while it trains or runs another cell.

    Parameters
    ----------
    sweep : Sweep, optional
        A finished or cancelled sweep to show. Nothing is trained then.
    background : bool
        Whether training runs on a thread of its own. False is for hosts that show no message of
        such a thread: nothing is trained then until `train` is called, best in the cell below the
        display; it trains in that cell, and interrupting the cell cancels it.
    **settings
        What to train instead of the default: the arguments of `qwidgets.sweep`, for example
        ``data="mnist", model="conv", epochs=5``.

    Attributes
    ----------
    epsilon : float
        Adversarial radius in training, input units. Between grid points everything shown is
        interpolated, and drawn hollow.
    regularization : float
        Strength of the regularizer.
    label : int
        Index of the class whose packets are shown.
    epoch : int
        Epoch shown; 0 is the untrained network.
    attack_epsilon : float
        Radius of the attack that measures robust accuracy, input units.
    plane : {"attack", "neighborhood"}
        What the uncertainty plane shows: the packet along the attack, or the effective radii of the
        neighbourhood of the class, where the sweep has measured them.
    run : dict
        ``phase`` ("empty", "preparing", "training", "paused", "done", "cancelled" or "failed"),
        ``fraction`` of the work done, and a ``message``.
    problem : str
        What went wrong last beside the training, for example in an observer of yours; empty if
        nothing did. It is shown in the widget until it is dismissed.

    Raises
    ------
    TypeError, ValueError
        What `qwidgets.sweep` raises for such arguments; and a sweep together with settings.

    Notes
    -----
    A cell that is run again cancels the training that it started before; what that had finished
    stays with it. The six choices can be set from Python at any time; moves in the browser reach
    them when the slider rests. Standard errors are binomial for accuracies and Maritz and
    Jarrett's for medians over the probe images of a class.
    """

    _esm = _static("index.js")
    _css = _static("style.css")

    epsilon = tl.Float(0.0).tag(sync=True)
    regularization = tl.Float(0.0).tag(sync=True)
    label = tl.Int(0).tag(sync=True)
    epoch = tl.Int(0).tag(sync=True)
    attack_epsilon = tl.Float(0.0).tag(sync=True)
    plane = tl.Enum(["attack", "neighborhood"], "attack").tag(sync=True)
    cube = tl.Dict(read_only=True).tag(sync=True)
    run = tl.Dict(read_only=True).tag(sync=True)
    heading = tl.Dict(_HEADING, read_only=True).tag(sync=True)
    figures = tl.Dict().tag(sync=True, **widget_serialization)
    marks = tl.Dict().tag(sync=True, **widget_serialization)

    def __init__(
        self, sweep: Sweep | None = None, *, background: bool = True, **settings: Any
    ) -> None:
        _check(sweep, settings)
        self._background = background
        self._settings = settings
        self._checked = _iterate(settings) if settings else None
        self._sweep: Sweep | None = None
        self._arrays: dict[str, NDArray[np.generic]] = {}
        self._runner: Runner | None = None
        self._starting = threading.Lock()
        self._panels = Panels()
        super().__init__(figures=self._panels.figures, marks=self._panels.marks)
        self.set_trait("run", {"phase": "empty", "fraction": 0.0, "message": ""})
        self.on_msg(self._on_command)
        supersede(self)
        if sweep is None and background:
            self.train()
        elif sweep is None:
            self.on_progress("empty", 0.0, "Call train() in another cell: it trains there")
        else:
            self._show_sweep(sweep)
            done = "" if sweep.complete else f"stopped after epoch {self.epoch}, "
            message = f"{done}{len(sweep.settings.epsilon) * len(sweep.settings.regularization)}"
            self.on_progress("done", 1.0, f"{message} trained networks")

    @property
    def sweep(self) -> Sweep | None:
        """What is shown, with everything finished so far; None before the first epoch."""
        return self._sweep

    def train(self) -> None:
        """Start the training from the beginning; does nothing while it runs.

        It returns at once, except with ``background=False``, where it returns when the training has
        ended.
        """
        with self._starting:
            if self._runner is not None and not self._runner.join(0):
                return

            checked, self._checked = self._checked, None
            self._sweep = None
            self._runner = Runner(lambda: checked or _iterate(self._settings), self)
            if self._background:
                self._runner.start()
        if not self._background:
            self._runner.work_here()

    def pause(self) -> None:
        """Stop training until `resume`; what is shown can still be explored."""
        if self._runner is not None:
            self._runner.pause()

    def resume(self) -> None:
        """Go on with a paused training."""
        if self._runner is not None:
            self._runner.resume()

    def cancel(self) -> None:
        """End the training; finished epochs stay."""
        if self._runner is not None:
            self._runner.cancel()

    def wait(self, timeout: float | None = None) -> Sweep:
        """Wait for the training to end.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        Sweep
            Everything that was finished.

        Raises
        ------
        TimeoutError
            The training takes longer.
        RuntimeError
            It was cancelled before anything was finished.
        Exception
            What the training raised.
        """
        if self._runner is not None:
            if not self._runner.join(timeout):
                message = f"training has not ended within timeout={timeout} seconds; it goes on."
                raise TimeoutError(message)
            if self._runner.error is not None:
                raise self._runner.error
        if self._sweep is None:
            message = "training was cancelled before anything was finished; start it with train()."
            raise RuntimeError(message)
        return self._sweep

    def close(self) -> None:
        """End the training and close all parts of the Explorer."""
        if self.comm is None:
            # Closed before, or refused by the constructor and now collected.
            return
        self.cancel()
        self._panels.close()
        super().close()
        self.layout.close()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is not None:
            # Beside the live view, for who reads the notebook without a kernel.
            with self.problems_shown("No picture of the Explorer for the saved notebook"):
                bundle[0].update(standstill(self))
        return bundle

    def __repr__(self) -> str:
        return f"<Explorer: {self.run.get('message') or self.run.get('phase', 'empty')}>"

    # What the runner reports, on its thread.

    def on_progress(self, phase: Phase, fraction: float, message: str) -> None:
        """Show how far the run is."""
        # What observers raise must not end the training.
        with self.problems_shown("An observer of the Explorer failed"):
            self.set_trait("run", {"phase": phase, "fraction": fraction, "message": message})

    def on_epoch(self, sweep: Sweep) -> None:
        """Show a finished epoch: the first builds the cube, a later one is added to it."""
        with self.problems_shown(f"Epoch {sweep.dataset.epoch.values[-1]} cannot be shown"):
            self._show_epoch(sweep)

    def _show_epoch(self, sweep: Sweep) -> None:
        if self._sweep is None:
            self._show_sweep(sweep)
            return
        self._sweep = sweep
        epoch = int(sweep.dataset.epoch[-1])
        arrays = views.plot_arrays(sweep.dataset, epoch)
        limits = views.limits(sweep.dataset)
        for name, values in arrays.items():
            self._arrays[name][epoch] = values
        # The cube is changed in place, so that a page opened later gets all of it, while the pages
        # that are open get only this epoch.
        following = self.epoch == self.cube["finished"] - 1
        scales = {"momentum_limit": limits.phase_momentum, "excess_limit": limits.excess}
        self.cube.update(finished=epoch + 1, values=self._values(epoch + 1), **scales)
        self._panels.show_limits(limits, sweep.settings.epochs)
        self.send(
            {"type": "epoch", "epoch": epoch, "names": list(arrays), **scales},
            [values.data for values in arrays.values()],
        )
        # Open pages follow by themselves; this is for one that is opened later, and for none.
        if following:
            self.epoch = epoch

    def _values(self, finished: int) -> dict[str, dict[str, Any]]:
        """Arrays of the finished epochs for the wire; what is still to come is not sent."""
        return {
            name: {
                "dtype": str(values.dtype),
                "shape": [finished, *values.shape[1:]],
                "data": values[:finished].data,
            }
            for name, values in self._arrays.items()
        }

    def _show_sweep(self, sweep: Sweep) -> None:
        import numpy as np

        dataset, planned = sweep.dataset, sweep.settings.epochs
        finished = dataset.sizes["epoch"]
        limits = views.limits(dataset)
        self._arrays = {}
        for name, values in views.plot_arrays(dataset).items():
            self._arrays[name] = np.full((planned + 1, *values.shape[1:]), np.nan, values.dtype)
            self._arrays[name][:finished] = values
        axes = views.plot_axes(dataset)
        width = float(dataset.attrs["width"])
        self._sweep = sweep
        shape = (len(axes["epsilon"]), len(axes["regularization"]))
        self.set_trait("heading", views.describe(dataset.attrs, shape))
        self._panels.show_limits(limits, planned)
        if not self.cube:
            self.attack_epsilon = views.middle_radius(axes["attack_epsilon"])
        # Choices made before the grid was known are moved onto it.
        self.label = min(max(self.label, 0), len(axes["label"]) - 1)
        for name in ("epsilon", "regularization", "attack_epsilon"):
            setattr(self, name, min(max(getattr(self, name), axes[name][0]), axes[name][-1]))
        self.epoch = finished - 1
        self.set_trait(
            "cube",
            {
                "axes": axes,
                "epochs": planned,
                "finished": finished,
                "width": width,
                "momentum_limit": limits.phase_momentum,
                "excess_limit": limits.excess,
                "values": self._values(finished),
            },
        )

    def _on_command(self, _widget: object, content: Mapping[str, Any], _buffers: object) -> None:
        commands = {
            "train": self.train,
            "pause": self.pause,
            "resume": self.resume,
            "cancel": self.cancel,
            "dismiss": self.dismiss,
        }
        name = content.get("type", "")
        if name in commands:
            with self.problems_shown(f"The Explorer could not {name}"):
                commands[name]()

    @tl.validate("epsilon", "regularization", "attack_epsilon")
    def _check_value(self, proposal: Any) -> float:
        name, value = proposal["trait"].name, proposal["value"]
        if self.cube:
            low, high = min(self.cube["axes"][name]), max(self.cube["axes"][name])
            if not low <= value <= high:
                message = f"{name} must be on the trained grid, {low:g} to {high:g}; got {value!r}."
                raise OffTheGridError(message)
        elif not (math.isfinite(value) and value >= 0):
            message = f"{name} must be a finite number of at least 0; got {value!r}."
            raise tl.TraitError(message)
        return float(value)

    @tl.validate("label", "epoch")
    def _check_index(self, proposal: Any) -> int:
        name, value = proposal["trait"].name, int(proposal["value"])
        if self.cube:
            size = len(self.cube["axes"]["label"]) if name == "label" else self.cube["finished"]
            if not 0 <= value < size:
                message = f"{name} must be from 0 to {size - 1}; got {value}."
                raise OffTheGridError(message)
        return value


def _iterate(settings: Mapping[str, Any]) -> Generator[Progress]:
    """Start a sweep; refuses wrong settings at once.

    It loads PyTorch, so plain `Explorer()` leaves it to its worker, and the controls are on the
    page before. Whoever names settings gets a wrong one refused in the cell that named it.
    """
    from qwidgets.sweep import iterate_sweep

    return iterate_sweep(**settings)


def _check(sweep: object, settings: Mapping[str, Any]) -> None:
    if sweep is None:
        return
    from qwidgets.sweep import Sweep as SweepClass

    if not isinstance(sweep, SweepClass):
        message = (
            f"sweep must be a Sweep, from qwidgets.sweep(...) or qwidgets.open_sweep(path);"
            f" got {type(sweep).__name__}."
        )
        raise TypeError(message)
    if settings:
        message = (
            f"a finished sweep takes no settings; got {', '.join(settings)}. Leave out the sweep to"
            " train with them."
        )
        raise TypeError(message)
