"""What a saved notebook shows of an Explorer where nothing is there to draw it live.

JupyterLab takes the widget's view out of an output, whatever else is in it, also where its model is
gone with the kernel, and then says "model not found". So the picture is an output of its own, below
the view, and its style sheet tells which of the two is seen: it works in a page that knows nothing
of this package.
"""

from __future__ import annotations

from base64 import b64encode
from html import escape
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple

from qwidgets import views
from qwidgets.widgets.cells import in_a_kernel
from qwidgets.widgets.runner import Latest

if TYPE_CHECKING:
    from collections.abc import Generator

    from qwidgets.own import Measurement
    from qwidgets.sweep import Sweep
    from qwidgets.widgets.explorer import Explorer
    from qwidgets.widgets.runner import Phase

# Every display of an Explorer puts this much into the notebook's file, so the whole plate gives
# way to one panel on large grids.
LARGEST_PICTURE = 120_000
# The work stands still in these: what is shown then is worth to be kept.
_AT_REST: frozenset[Phase] = frozenset({"paused", "done", "cancelled", "failed"})
_NO_PICTURE = "No picture of the Explorer for the saved notebook"

# The picture is hidden as long as a view of the same Explorer is right above it. The rules look at
# children of an output alone: one that asked the whole page made every redraw wait for its styles,
# and inside of `:has` neither `*` nor `:not` stands, which let a browser ask anew for every element
# that comes or goes.
# While JupyterLab says "Loading widget...", which it does for ever without a kernel, the view may
# still come: the picture waits, and then takes the line's place. It takes that of an error at once.
_PAGE = Template("""\
<div class="qw-saved qw-saved-$model">
<style>
$output:has(> $view > .qw-view-$model) + $output:has(.qw-saved-$model) {
  display: none !important;
}
$output:has(> $view):not(:has(> .jupyter-widgets)) + $output:has(.qw-saved) {
  animation: qw-hidden 3s;
}
$output:has(> $view):has(+ $output .qw-saved):not(
  :has(> .jupyter-widgets, > $view > .lm-Widget)
) {
  animation: qw-hidden 1ms 3s forwards;
}
$output:has(> $view.jupyter-widgets):has(+ $output .qw-saved) {
  display: none;
}
@keyframes qw-hidden {
  from, to { display: none; }
}
.qw-saved p {
  max-width: 75em;
}
</style>
$picture<p>$words</p>
<p><small>As it was saved. Run the cell to move the sliders again.</small></p>
</div>
""")
_OUTPUT = ".jp-OutputArea-child"
# What JupyterLab shows a widget in; it has the class "jupyter-widgets" where it shows an error.
_VIEW = ".lm-Panel.jp-OutputArea-output"
# On a ground of its own, as its ink is dark.
_PICTURE = Template("""\
<img src="data:image/svg+xml;base64,$data" alt="$title" \
style="width: 100%; max-width: 75em; background: #fff; border-radius: 4px;">
""")


class Moment(NamedTuple):
    """What an Explorer shows at one moment; it may work on while that is drawn.

    Attributes
    ----------
    state
        How far the work is, in words.
    found
        Everything finished by then; None before the first epoch.
    position
        Where the sliders stand, by the names of `views.POSITION`.
    """

    state: str
    found: Sweep | Measurement | None
    position: dict[str, Any]


def moment(explorer: Explorer) -> Moment:
    """Take down what an Explorer shows now."""
    return Moment(
        explorer.run["message"] or explorer.run["phase"],
        explorer.sweep,
        {name: getattr(explorer, name) for name in views.POSITION},
    )


class Standstill:
    """The picture below the views of an Explorer, renewed whenever the work comes to rest.

    It is drawn on a thread of its own: while that of the training drew, a cancel had to wait.

    Parameters
    ----------
    explorer : Explorer
        It carries the class ``qw-view-`` and its model's identity on its views from now on.
    background : bool
        False draws on the caller's thread instead.
    """

    def __init__(self, explorer: Explorer, *, background: bool = True) -> None:
        self._explorer = explorer
        self._model = explorer.model_id
        self._latest: Latest[Moment] = Latest(self._renew, self._failed, background=background)
        self._displayed = self._drawn = False
        explorer.add_class(f"qw-view-{self._model}")

    def display(self) -> None:
        """Display the picture; does nothing where no notebook can keep it."""
        if in_a_kernel():
            self._displayed = True
            self._drawn = self._trained
            with self._explorer.problems_shown(_NO_PICTURE):
                self._publish(moment(self._explorer), update=False)

    def follow(self, phase: Phase) -> None:
        """Renew what is displayed, if the work is at rest or its first epoch is finished."""
        first = self._trained and not self._drawn
        if self._displayed and (first or phase in _AT_REST):
            self._drawn = self._trained
            self._latest.ask(moment(self._explorer))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the last picture is displayed; False if that takes longer."""
        return self._latest.wait(timeout)

    def close(self) -> None:
        """Draw no more."""
        self._latest.close()

    def _renew(self, seen: Moment) -> Generator[None]:
        self._publish(seen, update=True)
        yield

    def _failed(self, _seen: Moment, error: Exception) -> None:
        with self._explorer.problems_shown(_NO_PICTURE):
            raise error

    @property
    def _trained(self) -> bool:
        """Whether there is more to draw than untrained networks."""
        finished: int = self._explorer.cube.get("finished", 0)
        return finished > 1

    def _publish(self, seen: Moment, *, update: bool) -> None:
        from IPython.display import display

        # All displays of an Explorer show the same.
        display(
            standstill(seen, self._model),
            raw=True,
            display_id=f"qwidgets-{self._model}",
            update=update,
        )


def standstill(seen: Moment, model: str) -> dict[str, str]:
    """Words and a picture of a moment, by their media types.

    Parameters
    ----------
    seen : Moment
        Before the first finished epoch, and of models of your own, there are words only.
    model : str
        What the views and this picture have in common.

    Returns
    -------
    dict of str to str
        ``text/plain``, and ``text/html`` with a drawing of at most `LARGEST_PICTURE` bytes.
    """
    words, drawing = _words_and_drawing(seen)
    picture = ""
    if drawing is not None:
        data = b64encode(drawing.encode()).decode()
        picture = _PICTURE.substitute(
            data=data, title="The panels of the Explorer, as it was saved."
        )
    page = _PAGE.substitute(
        model=model, output=_OUTPUT, view=_VIEW, picture=picture, words=escape(words)
    )
    return {"text/plain": words, "text/html": page}


def _words_and_drawing(seen: Moment) -> tuple[str, str | None]:
    state, found, position = seen
    if found is None:
        return f"Explorer: {state}; display it again to keep a picture of it.", None
    from qwidgets.figure import figure
    from qwidgets.sweep import Sweep

    if not isinstance(found, Sweep):
        # Figures are drawn of grids.
        return f"Explorer: {state}.", None
    whole = figure(found, "all", **position)
    words = f"Explorer: {state}. {whole.caption}"
    for drawn in (whole, figure(found, "plane", **position)):
        if len(drawn.svg.encode()) <= LARGEST_PICTURE:
            return words, drawn.svg
    return words, None
