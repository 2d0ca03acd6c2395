"""The Explorer: two sliders, and the uncertainty of real trained networks redraws at once."""

from __future__ import annotations

import sys
import threading
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import traitlets as tl
from ipywidgets import widget_serialization

from qwidgets import __version__, views
from qwidgets.widgets.cells import answered_beside_cells, in_a_kernel, supersede
from qwidgets.widgets.choices import PANELS, checked_panels, choice
from qwidgets.widgets.jobs import measuring, refining, training
from qwidgets.widgets.looking import NOTHING_SEEN, Look, Looking, Survey, Surveying
from qwidgets.widgets.panels import Panels
from qwidgets.widgets.problems import ProblemsShown
from qwidgets.widgets.runner import Phase, Runner, countdown
from qwidgets.widgets.saved import Standstill
from qwidgets.widgets.settings import (
    changed,
    iterate,
    of_models,
    refuse_what_is_no_sweep,
    settings_of,
)
from qwidgets.widgets.shown import Shown, words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qwidgets.lens import Lens
    from qwidgets.own import Measurement
    from qwidgets.sweep import Sweep
    from qwidgets.widgets.runner import Job

# A change of one of these moves the lens.
_SEEN_BY_THE_LENS = ["epsilon", "regularization", "label", "attack_epsilon", "model", "image"]
_CHOICES = [*_SEEN_BY_THE_LENS, "epoch"]
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
    panels : sequence of str, optional
        What is on the page, by default all: "plane", "phase_space", "tradeoff", "curves",
        "robustness", "input_plane" (of two-dimensional data) and "lens". Fewer have more room, and
        redraw sooner on a slow machine.
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
    panels : list of str
        What is on the page, in its order. It can be set at any time.
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
        What `qwidgets.sweep` raises for such arguments; a sweep together with settings; names that
        are no panels.

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
    panels: tl.TraitType[Any, Any] = tl.TraitType(list(PANELS)).tag(sync=True)
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
        panels: Sequence[str] | None = None,
        background: bool = True,
        **settings: Any,
    ) -> None:
        on = checked_panels(panels)
        refuse_what_is_no_sweep(sweep, settings)
        self._background = background
        # What is trained next, if nothing else is asked for: what is shown.
        self._settings = settings or settings_of(sweep)
        self._checked = iterate(settings) if settings else None
        self._kept: list[Shown] = []
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
        super().__init__(figures=self._panels.figures, marks=self._panels.marks, panels=on)
        answered_beside_cells(self.comm)
        self._standstill = Standstill(self, background=background)
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
            self.on_progress("done", 1.0, self._shown.state)

    @property
    def sweep(self) -> Sweep | Measurement | None:
        """What is shown, with everything finished so far; None before the first epoch."""
        return self._shown.found if self._kept else None

    @property
    def refinements(self) -> tuple[Sweep, ...]:
        """The networks refined from what is shown, each a sweep of one network."""
        return tuple(self._shown.refinements) if self._kept else ()

    @property
    def kept(self) -> tuple[Sweep | Measurement, ...]:
        """Everything that this Explorer holds, in the order of training; see `train`."""
        return tuple(shown.found for shown in self._kept)

    @property
    def _shown(self) -> Shown:
        return self._kept[self._current]

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
        RuntimeError
            The Explorer is closed.
        """
        self._check_open("train")
        with self._starting:
            if self._busy():
                return
            if settings:
                wanted = changed(self._settings, settings)
                self._checked = iterate(wanted)
                self._settings = wanted
            self._begin(keep=keep)
        self._work_here()

    def _begin(self, *, keep: bool) -> None:
        # What is shown is kept or replaced by the first finished epoch, and until then stays.
        self._fresh, self._keep = True, keep
        checked, self._checked = self._checked, None
        kind: Any = measuring if of_models(self._settings) else training
        settings = self._settings
        self._start(kind(lambda: checked or iterate(settings), self.on_epoch))

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
            Nothing trained is shown, or the Explorer is closed.
        TypeError, ValueError
            As `qwidgets.refine`; also a point of the grid, whose network there is.
        """
        self._check_open("refine")
        with self._starting:
            if self._busy():
                return
            shown = self._shown if self._kept else None
            if shown is None or not shown.grid:
                message = (
                    "refine needs a grid of trained networks to start from; wait for the first "
                    "epoch of a training."
                )
                raise RuntimeError(message)
            # All is checked before a slider moves.
            point = {
                "epsilon": self._checked_choice("epsilon", epsilon),
                "regularization": self._checked_choice("regularization", regularization),
            }
            if shown.on_grid(point):
                message = (
                    f"refine needs a point between the networks of the grid, got {words(point)}, "
                    "where one was trained; move a slider."
                )
                raise ValueError(message)
            from qwidgets.refine import iterate_refinement

            units = iterate_refinement(shown.found, **point, epochs=epochs)
            for name, value in point.items():
                setattr(self, name, value)
            if shown.refined_at(point, complete=True) is not None:
                return
            self._start(refining(lambda: units, self._on_refined, words(point)))
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
            Something is being trained, or the Explorer is closed.
        IndexError
            There is no such.
        """
        self._check_open("show")
        if self._busy():
            message = "show needs the training to be over; cancel it, or wait for its end."
            raise RuntimeError(message)
        if not 0 <= index < len(self._kept):
            message = f"index must be from 0 to {len(self._kept) - 1}, got {index}; see kept."
            raise IndexError(message)
        self._current = index
        self._settings = self._shown.settings
        self._show_all()
        self.on_progress("done", 1.0, self._shown.state)

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
            Nothing is shown yet, or the Explorer is closed.
        TimeoutError
            It takes longer.
        Exception
            What looking raised, for example that the images are not at hand.
        """
        self._check_open("look")
        if not self._kept:
            message = "look needs a finished epoch; wait for the first."
            raise RuntimeError(message)
        self._watched = True
        self._look_again()
        self._survey_again()
        left = countdown(timeout)
        while self._surveying.wait(left()) and self._looking.wait(left()):
            seen, error = self._looking.seen, self._looking.error
            if error is not None:
                raise error
            if seen is not None:
                return seen
            # A slider was moved just now, and another look has begun, or none begins any more.
            self._check_open("look")
        message = f"the lens was not done within timeout={timeout} seconds."
        raise TimeoutError(message)

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
            left = countdown(timeout)
            if not self._runner.join(left()):
                message = f"training has not ended within timeout={timeout} seconds; it goes on."
                raise TimeoutError(message)
            # A cell that waits ends with the picture of what it waited for.
            self._standstill.wait(left())
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
        self._standstill.close()
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
        if self._fresh or not self._shown.grid:
            self._show_new(found)
            return
        following = self.epoch == self.cube["finished"] - 1
        shown = self._shown
        epoch, arrays = shown.add(found)
        # The cube is changed in place, so that a page opened later gets all of it, while the pages
        # that are open get only this epoch.
        self.cube.update(shown.cube())
        self._panels.show_limits(shown.limits, shown.planned)
        scales = {name: self.cube[name] for name in ("momentum_limit", "excess_limit")}
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
        shown = self._shown
        index, epoch, arrays = shown.add_refined(found)
        # As with the cube: the trait for pages opened later, the message for those that are open.
        self.refined[:] = shown.refined
        about = {key: value for key, value in shown.refined[index].items() if key != "values"}
        self.send(
            {"type": "refined", "index": index, "epoch": epoch, "names": list(arrays), **about},
            [memoryview(values.tobytes()) for values in arrays.values()],
        )
        if found.complete:
            self._look_again()
            self._survey_again()

    def _show_new(self, found: Sweep | Measurement) -> None:
        shown = Shown(found, self._settings)
        if self._fresh and (self._keep or not self._kept):
            self._current = len(self._kept)
            self._kept.append(shown)
        else:
            self._kept[self._current] = shown
        self._fresh = False
        self._show_all()
        if not shown.grid:
            from qwidgets.own import doubts

            doubted = " ".join(doubts(shown.found))
            if doubted:
                self.tell("problem", doubted)

    def _show_all(self) -> None:
        """Send all of what is shown: the grid, its refined points, and where they are."""
        shown = self._shown
        # A new number each time: else a page takes what begins as something before did for that.
        cube = shown.cube() | {"serial": self.cube.get("serial", 0) + 1}
        axes = cube["axes"]
        self.tell("heading", shown.heading)
        self._panels.show_limits(shown.limits, max(shown.planned, 1))
        # Choices are moved onto what is shown next.
        self._moving = True
        try:
            radii = axes["attack_epsilon"]
            if not self.cube or max(radii) != max(self.cube["axes"]["attack_epsilon"]):
                self.tell("attack_epsilon", views.middle_radius(radii))
            self.tell("label", min(max(self.label, 0), len(axes["label"]) - 1))
            for name in ("epsilon", "regularization", "attack_epsilon"):
                self.tell(name, min(max(getattr(self, name), axes[name][0]), axes[name][-1]))
            if not shown.grid:
                self.tell("model", self.model if self.model in axes["model"] else axes["model"][0])
            self.tell("epoch", shown.last)
            self.tell("refined", list(shown.refined))
            self.tell("cube", cube)
        finally:
            self._moving = False
        self._name_runs()
        self._look_again()
        if self.regions["state"] != "empty":
            self.tell("regions", dict(NOTHING_SEEN))
        self._survey_again()

    def _name_runs(self) -> None:
        runs = {"names": [shown.name for shown in self._kept], "shown": self._current}
        if runs != self.runs:
            self.tell("runs", runs)

    def _look_again(self) -> None:
        """Ask for the lens anew, where somebody watches it."""
        if self._watched and self._kept and not self._moving and not self._working_here():
            network, of = self._shown.nearest(self.epsilon, self.regularization, self.model)
            self._looking.look(
                Look(
                    found=self._shown.found,
                    network=network,
                    of=of,
                    label=self.label,
                    image=self.image,
                    attack_epsilon=self.attack_epsilon,
                )
            )

    def _survey_again(self) -> None:
        """Ask for the input plane anew, where the data have one and somebody watches it."""
        shown = self._shown
        plane = shown.found.dataset.attrs["input_shape"] == [2]
        if self._watched and plane and not self._working_here():
            survey = Survey(found=shown.found, networks=shown.networks(), epoch=shown.last)
            self._surveying.ask(survey)

    def _check_open(self, what: str) -> None:
        if self.comm is None:
            message = f"{what} needs an open Explorer, and this one is closed; make another one."
            raise RuntimeError(message)

    def _busy(self) -> bool:
        return self._runner is not None and self._runner.busy

    def _working_here(self) -> bool:
        # What is looked at then would hold up the work on the same thread.
        return not self._background and self._busy()

    def _start(self, job: Job[Any]) -> None:
        here = not self._background
        begin = (lambda: None) if here else self._after_first_paint
        after = None if here else self._runner
        self._runner = Runner(job, self.on_progress, here=here, begin=begin, after=after)
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
            if self._kept:
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
            if settings:
                # Chosen beside what is shown, not beside what may have failed since.
                shown = self._shown.settings if self._kept else self._settings
                self._settings = changed(shown, settings)
            self._begin(keep=keep)
        self._work_here()

    def _watch(self) -> None:
        if not self._watched:
            self._watched = True
            self._look_again()
            if self._kept:
                self._survey_again()

    def _checked_choice(self, name: str, value: float | None) -> Any:
        if value is None:
            return getattr(self, name)
        return choice(name, self.traits()[name].validate(self, value), self.cube)

    @tl.validate("panels")
    def _check_panels(self, proposal: Any) -> list[str]:
        try:
            return checked_panels(proposal["value"])
        except (TypeError, ValueError) as error:
            raise tl.TraitError(str(error)) from None

    @tl.validate(*_CHOICES)
    def _check_choice(self, proposal: Any) -> float | int | str:
        # While choices are moved onto what is shown next, what was before does not count.
        cube = {} if self._moving else self.cube
        return choice(proposal["trait"].name, proposal["value"], cube)
