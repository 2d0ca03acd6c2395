"""The Explorer: two sliders, and the uncertainty of real trained networks redraws at once."""

from __future__ import annotations

import math
import sys
import threading
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import traitlets as tl
from ipywidgets import widget_serialization

from qwidgets import __version__, views
from qwidgets.widgets.cells import answered_beside_cells, in_a_kernel, supersede
from qwidgets.widgets.jobs import measuring, refining, training
from qwidgets.widgets.looking import NOTHING_SEEN, Look, Looking, Survey, Surveying, wire
from qwidgets.widgets.panels import Panels
from qwidgets.widgets.problems import OffTheGridError, ProblemsShown
from qwidgets.widgets.runner import Phase, Runner
from qwidgets.widgets.saved import Standstill

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from qwidgets.lens import Lens
    from qwidgets.own import Measurement
    from qwidgets.sweep import Sweep
    from qwidgets.widgets.runner import Job

# A change of one of these moves the lens.
_SEEN_BY_THE_LENS = ["epsilon", "regularization", "label", "attack_epsilon", "model", "image"]
# Seconds that a training waits at most for the first page to be painted.
_LONGEST_COURTESY = 1.0
_HEADING = {
    "title": views.TITLE,
    "subtitle": "",
    "regularizer": "strength of the regularizer",
}


def _static(name: str) -> str:
    file = files("qwidgets") / "static" / name
    if not file.is_file():
        message = (
            f"the front-end part qwidgets/static/{name} of qwidgets {__version__} is missing: this"
            " source tree was not built; install it with 'make install' or 'pip install .'."
        )
        raise FileNotFoundError(message)
    return file.read_text("utf-8")


class Explorer(ProblemsShown):
    """Move adversarial radius and regularization; see position-momentum uncertainty redraw.

    Without arguments a default grid of networks on digits is trained in the background; the
    Explorer can be used from the first finished epoch on. Moves of the sliders are drawn in the
    browser alone: they never wait for the kernel, also while it trains or runs another cell.

    Networks of your own are measured and not trained: ``Explorer(model=module, data=dataset)``, or
    several side by side with ``Explorer(models={"clean": a, "robust": b}, data=dataset)``.

    Parameters
    ----------
    sweep : Sweep or Measurement, optional
        A finished or cancelled sweep to show, or what `qwidgets.measure` returned. Nothing is
        trained then.
    background : bool
        Whether training runs on a thread of its own. False is for hosts that show no message of
        such a thread: nothing is trained then until `train` is called, best in the cell below the
        display; it trains in that cell, and interrupting the cell cancels it.
    **settings
        What to train instead of the default: the arguments of `qwidgets.sweep`, for example
        ``data="mnist", model="conv", epochs=5``. With a `torch.nn.Module` as ``model``, or several
        as ``models``, the arguments of `qwidgets.measure`.

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
    model : str
        Name of the model shown, of several of your own.
    image : int
        Which of the test images of the class the attack lens shows, from 0.
    plane : {"attack", "neighborhood"}
        What the uncertainty plane shows: the packet along the attack, or the effective radii of the
        neighbourhood of the class, where the sweep has measured them.
    run : dict
        ``phase`` ("empty", "preparing", "training", "refining", "measuring", "paused", "done",
        "cancelled" or "failed"), ``fraction`` of the work done, and a ``message``.
    lens : dict
        What the attack lens shows, and of which network; see `look`.
    regions : dict
        The input plane of two-dimensional data, for all networks after the last finished epoch.
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
    stays with it. The choices can be set from Python at any time; moves in the browser reach them
    when the slider rests. Standard errors are binomial for accuracies and Maritz and Jarrett's for
    medians over the probe images of a class.
    """

    _esm = _static("index.js")
    _css = _static("style.css")

    epsilon = tl.Float(0.0).tag(sync=True)
    regularization = tl.Float(0.0).tag(sync=True)
    label = tl.Int(0).tag(sync=True)
    epoch = tl.Int(0).tag(sync=True)
    attack_epsilon = tl.Float(0.0).tag(sync=True)
    plane = tl.Enum(["attack", "neighborhood"], "attack").tag(sync=True)
    model = tl.Unicode("").tag(sync=True)
    image = tl.Int(0).tag(sync=True)
    lens = tl.Dict(dict(NOTHING_SEEN), read_only=True).tag(sync=True)
    regions = tl.Dict(dict(NOTHING_SEEN), read_only=True).tag(sync=True)
    refined: tl.List[Any] = tl.List(read_only=True).tag(sync=True)
    runs = tl.Dict({"names": [], "shown": 0}, read_only=True).tag(sync=True)
    cube = tl.Dict(read_only=True).tag(sync=True)
    run = tl.Dict(read_only=True).tag(sync=True)
    heading = tl.Dict(_HEADING, read_only=True).tag(sync=True)
    figures = tl.Dict().tag(sync=True, **widget_serialization)
    marks = tl.Dict().tag(sync=True, **widget_serialization)

    def __init__(
        self,
        sweep: Sweep | Measurement | None = None,
        *,
        background: bool = True,
        **settings: Any,
    ) -> None:
        _check(sweep, settings)
        self._background = background
        self._settings = settings
        self._checked = _iterate(settings) if settings else None
        self._shown: list[_Run] = []
        self._current = 0
        # Whether the next epoch begins something new, and whether what it follows is kept.
        self._fresh, self._keep = True, False
        self._moving = False
        self._runner: Runner | None = None
        self._starting = threading.Lock()
        # Whether a page has said anything yet.
        self._met = threading.Event()
        self._panels = Panels()
        # Looks from the first view on; without one nobody would see it.
        self._watched = False
        self._looking = Looking(lambda seen: self.tell("lens", seen), background=background)
        self._surveying = Surveying(lambda seen: self.tell("regions", seen), background=background)
        super().__init__(figures=self._panels.figures, marks=self._panels.marks)
        answered_beside_cells(self.comm)
        self._standstill = Standstill(self)
        self.set_trait("run", {"phase": "empty", "fraction": 0.0, "message": ""})
        self.on_msg(self._on_command)
        self.observe(lambda _: self._look_again(), _SEEN_BY_THE_LENS)
        supersede(self)
        if sweep is None and background:
            self.train()
        elif sweep is None:
            self.on_progress("empty", 0.0, "Call train() in another cell: it trains there")
        else:
            self._show_new(sweep)
            self.on_progress("done", 1.0, _words_of(sweep))

    @property
    def sweep(self) -> Sweep | Measurement | None:
        """What is shown, with everything finished so far; None before the first epoch."""
        return self._run.found if self._shown else None

    @property
    def refinements(self) -> tuple[Sweep, ...]:
        """The networks refined from what is shown, each a sweep of one network."""
        return tuple(self._run.refinements) if self._shown else ()

    @property
    def kept(self) -> tuple[Sweep | Measurement, ...]:
        """Everything that this Explorer holds, in the order of training; see `train`."""
        return tuple(run.found for run in self._shown)

    @property
    def _run(self) -> _Run:
        return self._shown[self._current]

    def train(self, *, keep: bool = False, **settings: Any) -> None:
        """Start the training from the beginning; does nothing while it runs.

        It returns at once, except with ``background=False``, where it returns when the training has
        ended.

        Parameters
        ----------
        keep : bool
            Keep what is shown: `show` returns to it. Otherwise it is replaced.
        **settings
            What to train differently from now on: arguments of `qwidgets.sweep`.

        Raises
        ------
        TypeError, ValueError
            As the Explorer itself does.
        """
        with self._starting:
            if self._busy():
                return
            if settings:
                changed = _changed(self._settings, settings)
                self._checked = _iterate(changed)
                self._settings = changed
            self._begin(keep=keep)
        self._work_here()

    def _begin(self, *, keep: bool) -> None:
        # What is shown is kept or replaced by the first finished epoch, and until then stays.
        self._fresh, self._keep = True, keep
        checked, self._checked = self._checked, None
        kind: Any = measuring if _of_models(self._settings) else training
        settings = self._settings
        self._start(kind(lambda: checked or _iterate(settings), self.on_epoch))

    def refine(
        self,
        epochs: int | None = None,
        *,
        epsilon: float | None = None,
        regularization: float | None = None,
    ) -> None:
        """Train one network exactly where the sliders stand; it returns as `train` does.

        It starts from the nearest network of the grid and stays in this session: its dot is solid,
        and the sliders can return to it. Does nothing while something else is trained, or where
        it has been done.

        Parameters
        ----------
        epochs : int, optional
            Passes over the training images; by default as many as the grid was to have.
        epsilon, regularization : float, optional
            Another point, to which the sliders are moved.

        Raises
        ------
        RuntimeError
            Nothing trained is shown.
        ValueError
            As `qwidgets.refine`; also a point of the grid, whose network there is.
        """
        with self._starting:
            if self._busy():
                return
            run = self._run if self._shown else None
            if run is None or not run.grid:
                message = (
                    "refine needs a grid of trained networks to start from; wait for the first "
                    "epoch of a training."
                )
                raise RuntimeError(message)
            for name, value in (("epsilon", epsilon), ("regularization", regularization)):
                if value is not None:
                    setattr(self, name, value)
            point = {"epsilon": self.epsilon, "regularization": self.regularization}
            chosen = run.found.settings
            if all(
                any(_same(value, on) for on in getattr(chosen, name))
                for name, value in point.items()
            ):
                message = (
                    f"refine needs a point between the networks of the grid, got {_words(point)}, "
                    "where one was trained; move a slider."
                )
                raise ValueError(message)
            if run.refined_at(point, complete=True) is not None:
                return
            from qwidgets.refine import iterate_refinement

            units = iterate_refinement(run.found, **point, epochs=epochs)
            self._start(refining(lambda: units, self._on_refined, _words(point)))
        self._work_here()

    def show(self, index: int) -> None:
        """Return to what was kept.

        Parameters
        ----------
        index : int
            Position in `kept`.

        Raises
        ------
        RuntimeError
            Something is being trained.
        IndexError
            There is no such.
        """
        if self._busy():
            message = "show needs the training to be over; cancel it, or wait for its end."
            raise RuntimeError(message)
        if not 0 <= index < len(self._shown):
            message = f"index must be from 0 to {len(self._shown) - 1}, got {index}; see kept."
            raise IndexError(message)
        self._current = index
        self._show_run()
        self.on_progress("done", 1.0, _words_of(self._run.found))

    def look(self, timeout: float | None = 60.0) -> Lens:
        """Look through the attack lens at the network that is shown, and return what is seen.

        The network is the one at the sliders' point, or the nearest trained one, after the last
        finished epoch. The trait ``lens`` holds the same for the browser.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        Lens

        Raises
        ------
        RuntimeError
            Nothing is shown yet.
        TimeoutError
            It takes longer.
        Exception
            What looking raised, for example that the images are not at hand.
        """
        if not self._shown:
            message = "look needs a finished epoch; wait for the first."
            raise RuntimeError(message)
        self._watched = True
        self._look_again()
        self._survey_again()
        if not (self._looking.wait(timeout) and self._surveying.wait(timeout)):
            message = f"the lens was not done within timeout={timeout} seconds."
            raise TimeoutError(message)
        if self._looking.error is not None:
            raise self._looking.error
        assert self._looking.seen is not None
        return self._looking.seen

    def pause(self) -> None:
        """Hold the training until `resume`; what is shown can still be explored."""
        if self._runner is not None:
            self._runner.pause()

    def resume(self) -> None:
        """Go on with a paused training."""
        if self._runner is not None:
            self._runner.resume()

    def cancel(self) -> None:
        """End the training; what is finished stays."""
        if self._runner is not None:
            self._runner.cancel()

    def wait(self, timeout: float | None = None) -> Sweep | Measurement:
        """Wait for the training, the refining or the measurement to end.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        Sweep or Measurement
            Everything that was finished; see also `refinements`.

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
        if self.sweep is None:
            message = "training was cancelled before anything was finished; start it with train()."
            raise RuntimeError(message)
        return self.sweep

    def close(self) -> None:
        """End the training and close all parts of the Explorer."""
        if self.comm is None:
            # Closed before, or refused by the constructor and now collected.
            return
        self.cancel()
        self._looking.close()
        self._surveying.close()
        self._panels.close()
        super().close()
        self.layout.close()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        # Once it is closed there is nothing to view.
        bundle = None if self.comm is None else self._repr_mimebundle_()
        view, metadata = bundle or ({"text/plain": repr(self)}, {})
        display(view, raw=True, metadata=metadata)
        if bundle is not None:
            self._standstill.display()

    def __repr__(self) -> str:
        return f"<Explorer: {self.run.get('message') or self.run.get('phase', 'empty')}>"

    # What the runner reports, on its thread.

    def on_progress(self, phase: Phase, fraction: float, message: str) -> None:
        """Show how far the run is."""
        self.tell("run", {"phase": phase, "fraction": fraction, "message": message})
        self._standstill.follow(phase)

    def on_epoch(self, found: Sweep | Measurement) -> None:
        """Show a finished epoch: the first builds the cube, a later one is added to it."""
        with self.problems_shown("What was finished last cannot be shown"):
            self._show_epoch(found)

    def _show_epoch(self, found: Sweep | Measurement) -> None:
        if self._fresh or not _is_sweep(found):
            self._show_new(found)
            return
        run = self._run
        run.found = found
        epoch = int(found.dataset.epoch[-1])
        arrays = views.plot_arrays(found.dataset, epoch)
        limits = views.limits(found.dataset)
        for name, values in arrays.items():
            run.arrays[name][epoch] = values
        # The cube is changed in place, so that a page opened later gets all of it, while the pages
        # that are open get only this epoch.
        following = self.epoch == self.cube["finished"] - 1
        scales = {"momentum_limit": limits.phase_momentum, "excess_limit": limits.excess}
        self.cube.update(finished=epoch + 1, values=run.values(epoch + 1), **scales)
        self._panels.show_limits(limits, run.planned)
        self.send(
            {"type": "epoch", "epoch": epoch, "names": list(arrays), **scales},
            [values.data for values in arrays.values()],
        )
        # Open pages follow by themselves; this is for one that is opened later, and for none.
        if following:
            self.tell("epoch", epoch)
        self._name_runs()
        self._look_again()
        self._survey_again()

    def _on_refined(self, found: Sweep) -> None:
        """Show a finished epoch of a network between those of the grid."""
        with self.problems_shown("The refined network cannot be shown"):
            self._show_refined(found)

    def _show_refined(self, found: Sweep) -> None:
        run, epoch = self._run, int(found.dataset.epoch[-1])
        point = {
            "epsilon": found.settings.epsilon[0],
            "regularization": found.settings.regularization[0],
        }
        index = run.add_refined(point, found)
        entry = run.refined[index]
        arrays = views.plot_arrays(found.dataset, epoch)
        for name, values in arrays.items():
            run.refined_arrays[index][name][epoch] = values[0, 0]
        entry.update(finished=epoch + 1, complete=found.complete)
        # As with the cube: the trait for pages opened later, the message for those that are open.
        self.refined[:] = run.refined
        about = {key: value for key, value in entry.items() if key != "values"}
        self.send(
            {"type": "refined", "index": index, "epoch": epoch, "names": list(arrays), **about},
            [memoryview(values.tobytes()) for values in arrays.values()],
        )
        if found.complete:
            self._look_again()
            self._survey_again()

    def _show_new(self, found: Sweep | Measurement) -> None:
        run = _Run(found)
        if self._fresh and (self._keep or not self._shown):
            self._current = len(self._shown)
            self._shown.append(run)
        else:
            self._shown[self._current] = run
        self._fresh = False
        self._show_run()

    def _show_run(self) -> None:
        """Send all of what is shown: the grid, its refined points, and where they are."""
        run = self._run
        dataset = run.found.dataset
        finished = int(dataset.sizes.get("epoch", 1))
        limits = views.limits(dataset)
        axes = views.plot_axes(dataset)
        shape = (len(axes["epsilon"]), len(axes["regularization"]))
        heading = views.describe(dataset.attrs, shape if run.grid else (len(axes["model"]),))
        self.tell("heading", heading)
        self._panels.show_limits(limits, max(run.planned, 1))
        # Choices are moved onto what is shown next; none is checked against what was before.
        self._moving = True
        try:
            radii = axes["attack_epsilon"]
            if not self.cube or max(radii) != max(self.cube["axes"]["attack_epsilon"]):
                self.tell("attack_epsilon", views.middle_radius(radii))
            self.tell("label", min(max(self.label, 0), len(axes["label"]) - 1))
            for name in ("epsilon", "regularization", "attack_epsilon"):
                self.tell(name, min(max(getattr(self, name), axes[name][0]), axes[name][-1]))
            if not run.grid:
                self.tell("model", self.model if self.model in axes["model"] else axes["model"][0])
            self.tell("epoch", finished - 1)
            self.tell("refined", list(run.refined))
            self.tell(
                "cube",
                {
                    "axes": axes,
                    "epochs": run.planned,
                    "finished": finished,
                    "width": float(dataset.attrs["width"]),
                    "momentum_limit": limits.phase_momentum,
                    "excess_limit": limits.excess,
                    "values": run.values(finished),
                },
            )
        finally:
            self._moving = False
        self._name_runs()
        self._look_again()
        if self.regions["state"] != "empty":
            self.tell("regions", dict(NOTHING_SEEN))
        self._survey_again()

    def _name_runs(self) -> None:
        runs = {"names": [run.name for run in self._shown], "shown": self._current}
        if runs != self.runs:
            self.tell("runs", runs)

    def _look_again(self) -> None:
        """Ask for the lens anew, where somebody watches it."""
        if self._watched and self._shown and not self._moving and not self._working_here():
            network, of = self._run.nearest(self.epsilon, self.regularization, self.model)
            self._looking.look(
                Look(
                    found=self._run.found,
                    network=network,
                    of=of,
                    label=self.label,
                    image=self.image,
                    attack_epsilon=self.attack_epsilon,
                )
            )

    def _survey_again(self) -> None:
        """Ask for the input plane anew, where the data have one and somebody watches it."""
        run = self._run
        plane = run.found.dataset.attrs["input_shape"] == [2]
        if self._watched and plane and not self._working_here():
            networks = run.networks()
            self._surveying.ask(Survey(found=run.found, networks=networks, epoch=run.last))

    def _busy(self) -> bool:
        return self._runner is not None and self._runner.busy

    def _working_here(self) -> bool:
        # What is looked at then would hold up the work on the same thread.
        return not self._background and self._busy()

    def _start(self, job: Job[Any]) -> None:
        here = not self._background
        begin = (lambda: None) if here else self._after_first_paint
        self._runner = Runner(job, self.on_progress, here=here, begin=begin)
        if self._background:
            self._runner.start()

    def _after_first_paint(self) -> None:
        """Wait a moment for a page: PyTorch, while it loads, would keep Python from serving it."""
        if "torch" not in sys.modules and in_a_kernel():
            self._met.wait(_LONGEST_COURTESY)

    def _work_here(self) -> None:
        """Do on the calling thread what was started, where it has no other."""
        if not self._background and self._runner is not None:
            self._runner.work_here()
            if self._shown:
                self._look_again()
                self._survey_again()

    def _on_command(self, _widget: object, content: Mapping[str, Any], _buffers: object) -> None:
        self._met.set()
        kind = content.get("type")
        given = {key: value for key, value in content.items() if key != "type"}
        commands: dict[object, Callable[..., None]] = {
            "train": self.train,
            "refine": self.refine,
            "show": self.show,
            "look": self._watch,
            "pause": self.pause,
            "resume": self.resume,
            "cancel": self.cancel,
            "dismiss": self.dismiss,
        }
        # What the browser says is checked, and its data loaded, on the worker.
        if given:
            commands["train"] = self._train_anew
        if kind in commands:
            with self.problems_shown(f"The Explorer could not {kind}"):
                commands[kind](**given)

    def _train_anew(self, *, keep: bool = False, **settings: Any) -> None:
        with self._starting:
            if self._busy():
                return
            self._settings = _changed(self._settings, settings)
            self._begin(keep=keep)
        self._work_here()

    def _watch(self) -> None:
        if not self._watched:
            self._watched = True
            self._look_again()
            if self._shown:
                self._survey_again()

    @tl.validate("epsilon", "regularization", "attack_epsilon")
    def _check_value(self, proposal: Any) -> float:
        name, value = proposal["trait"].name, proposal["value"]
        if self.cube and not self._moving:
            low, high = min(self.cube["axes"][name]), max(self.cube["axes"][name])
            if not low <= value <= high:
                message = f"{name} must be on the trained grid, {low:g} to {high:g}; got {value!r}."
                raise OffTheGridError(message)
        elif not (math.isfinite(value) and value >= 0):
            message = f"{name} must be a finite number of at least 0; got {value!r}."
            raise tl.TraitError(message)
        return float(value)

    @tl.validate("model")
    def _check_model(self, proposal: Any) -> str:
        name: str = proposal["value"]
        names = self.cube["axes"]["model"] if self.cube and not self._moving else [name]
        if name not in names and name:
            known = ", ".join(map(repr, names)) or "none, a grid of networks is shown"
            message = f"model must be one of {known}; got {name!r}."
            raise OffTheGridError(message)
        return name

    @tl.validate("image")
    def _check_image(self, proposal: Any) -> int:
        value = int(proposal["value"])
        if value < 0:
            message = f"image must be at least 0; got {value}."
            raise tl.TraitError(message)
        return value

    @tl.validate("label", "epoch")
    def _check_index(self, proposal: Any) -> int:
        name, value = proposal["trait"].name, int(proposal["value"])
        if self.cube and not self._moving:
            size = len(self.cube["axes"]["label"]) if name == "label" else self.cube["finished"]
            if not 0 <= value < size:
                message = f"{name} must be from 0 to {size - 1}; got {value}."
                raise OffTheGridError(message)
        return value


class _Run:
    """What an Explorer shows: a grid or models, their arrays, and the networks refined from it."""

    def __init__(self, found: Any) -> None:
        import numpy as np

        self.found = found
        self.grid = _is_sweep(found)
        self.planned: int = self.found.settings.epochs if self.grid else 0
        self.arrays: dict[str, NDArray[np.generic]] = {}
        for name, values in views.plot_arrays(found.dataset).items():
            whole = np.full((self.planned + 1, *values.shape[1:]), np.nan, values.dtype)
            whole[: len(values)] = values
            self.arrays[name] = whole
        self.refinements: list[Sweep] = []
        self.refined: list[dict[str, Any]] = []
        self.refined_arrays: list[dict[str, NDArray[np.generic]]] = []

    def values(self, finished: int) -> dict[str, dict[str, Any]]:
        """Arrays of the finished epochs for the wire; what is still to come is not sent."""
        return wire({name: values[:finished] for name, values in self.arrays.items()})

    @property
    def name(self) -> str:
        """What it is called among those that are kept."""
        dataset = self.found.dataset
        axes = views.plot_axes(dataset)
        shape = (len(axes["epsilon"]), len(axes["regularization"]))
        heading = views.describe(dataset.attrs, shape if self.grid else (len(axes["model"]),))
        more = f" · {len(self.refined)} refined" if self.refined else ""
        return f"{heading['subtitle']} · {_count(self.last, 'epoch')}{more}"

    @property
    def last(self) -> int:
        """The last finished epoch."""
        return int(self.found.dataset.sizes.get("epoch", 1)) - 1

    def refined_at(self, point: Mapping[str, float], *, complete: bool) -> int | None:
        """Position of the refined network at a point, if there is one (that is complete)."""
        for index, entry in enumerate(self.refined):
            if all(_same(value, entry[name]) for name, value in point.items()):
                return index if entry["complete"] or not complete else None
        return None

    def add_refined(self, point: Mapping[str, float], found: Sweep) -> int:
        """Take an epoch of a refined network in; an unfinished one at its point is replaced."""
        import numpy as np

        index = self.refined_at(point, complete=False)
        if index is not None and found.dataset.sizes["epoch"] > 1:
            self.refinements[index] = found
            return index
        planned = found.settings.epochs
        arrays = {
            name: np.full((planned + 1, *values.shape[3:]), np.nan, values.dtype)
            for name, values in views.plot_arrays(found.dataset).items()
        }
        entry = {**point, "epochs": planned, "values": wire(arrays)}
        if index is None:
            index = len(self.refined)
            self.refined.append(entry)
            self.refined_arrays.append(arrays)
            self.refinements.append(found)
        else:
            self.refined[index], self.refined_arrays[index] = entry, arrays
            self.refinements[index] = found
        return index

    def networks(self) -> Sequence[Callable[[], Any]]:
        """Return all networks, to be made later: the grid or the models, then the refined ones."""
        found = self.found
        if not self.grid:
            return [partial(found.model, name) for name in found.names]
        grid = [
            partial(found.model, epsilon=epsilon, regularization=regularization)
            for epsilon in found.settings.epsilon
            for regularization in found.settings.regularization
        ]
        return grid + [
            partial(
                one.model,
                epsilon=one.settings.epsilon[0],
                regularization=one.settings.regularization[0],
            )
            for one in self.refinements
        ]

    def nearest(
        self, epsilon: float, regularization: float, model: str
    ) -> tuple[Callable[[], Any], dict[str, Any]]:
        """Return the network at a point or nearest to it, to be made later, and which that is."""
        of: dict[str, Any] = {
            "epsilon": 0.0,
            "regularization": 0.0,
            "model": "",
            "epoch": self.last,
        }
        if not self.grid:
            return lambda: self.found.model(model), of | {"model": model, "kind": "own"}
        point = {"epsilon": epsilon, "regularization": regularization}
        index = self.refined_at(point, complete=False)
        found: Any = self.found
        if index is not None:
            found = self.refinements[index]
            of |= {**point, "kind": "refined", "epoch": int(found.dataset.epoch[-1])}
        else:
            from qwidgets.refine import nearest_network

            row, column = nearest_network(found, epsilon, regularization)
            point = {
                "epsilon": found.settings.epsilon[row],
                "regularization": found.settings.regularization[column],
            }
            of |= {**point, "kind": "trained"}
        return lambda: found.model(**point), of


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def _words(point: Mapping[str, float]) -> str:
    return f"ε {point['epsilon']:.3g}, λ {point['regularization']:.3g}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _words_of(found: Any) -> str:
    """Say what is shown and was not trained just now."""
    if not _is_sweep(found):
        return f"{_count(len(found.names), 'model')}, measured and not trained"
    networks = len(found.settings.epsilon) * len(found.settings.regularization)
    stopped = "" if found.complete else f"stopped after epoch {int(found.dataset.epoch[-1])}, "
    return f"{stopped}{networks} trained networks"


def _is_sweep(found: object) -> bool:
    from qwidgets.sweep import Sweep as SweepClass

    return isinstance(found, SweepClass)


def _of_models(settings: Mapping[str, Any]) -> bool:
    """Whether models are given that are to be measured and not trained."""
    torch = sys.modules.get("torch")
    model = settings.get("model")
    return "models" in settings or (torch is not None and isinstance(model, torch.nn.Module))


def _changed(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change settings; what was chosen for what has changed is left to its default again."""
    kept = dict(settings)
    if changes.get("data", kept.get("data", "digits")) != kept.get("data", "digits"):
        for name in ("epsilon", "attack_epsilon", "width", "root", "train_size", "test_size"):
            kept.pop(name, None)
    if changes.get("regularizer", kept.get("regularizer", "gradient")) != kept.get(
        "regularizer", "gradient"
    ):
        kept.pop("regularization", None)
    if "model" in changes:
        kept.pop("learning_rate", None)
    # A folder holds one sweep, and a new one would be refused there.
    kept.pop("store", None)
    return kept | dict(changes)


def _iterate(settings: Mapping[str, Any]) -> Generator[Any]:
    """Start a sweep or a measurement; refuses wrong settings at once.

    It loads PyTorch, so plain `Explorer()` leaves it to its worker, and the controls are on the
    page before. Whoever names settings gets a wrong one refused in the cell that named it.
    """
    if _of_models(settings):
        from qwidgets.own import iterate_measurement

        given = dict(settings)
        models = given.pop("models", None)
        model = given.pop("model", None)
        if models is not None and model is not None:
            message = "model and models are the same choice; pass one of them."
            raise TypeError(message)
        if "data" not in given:
            message = (
                "data must be given with models of your own; pass data=dataset, from "
                "qwidgets.Dataset.from_arrays(inputs, labels) or qwidgets.load_data(name)."
            )
            raise TypeError(message)
        return iterate_measurement(model if models is None else models, **given)
    from qwidgets.sweep import iterate_sweep

    return iterate_sweep(**settings)


def _check(sweep: object, settings: Mapping[str, Any]) -> None:
    if sweep is None:
        return
    from qwidgets.own import Measurement as MeasurementClass
    from qwidgets.sweep import Sweep as SweepClass

    if not isinstance(sweep, (SweepClass, MeasurementClass)):
        message = (
            f"sweep must be a Sweep, from qwidgets.sweep(...) or qwidgets.open_sweep(path), or a "
            f"Measurement, from qwidgets.measure(...); got {type(sweep).__name__}."
        )
        raise TypeError(message)
    if settings:
        message = (
            f"a finished sweep takes no settings; got {', '.join(settings)}. Leave out the sweep to"
            " train with them."
        )
        raise TypeError(message)
