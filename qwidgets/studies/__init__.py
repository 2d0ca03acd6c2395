"""Studies that make the claims of the papers checkable: ``qwidgets reproduce NAME``.

Each study is one file on the public functions of `qwidgets` alone, and ends in tables (CSV),
figures (SVG), an interactive page and a short text with a verdict for each claim.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from qwidgets.data import Dataset
from qwidgets.progress import progress_bar
from qwidgets.studies import binary, bounds, given, mine, training
from qwidgets.studies.study import Conclusion, Setting, Study, iterate_study
from qwidgets.sweep import one_core_spared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from qwidgets.studies.study import Size

__all__ = ["STUDIES", "Conclusion", "Study", "named", "reproduce", "run"]

STUDIES: dict[str, Study] = {
    study.name: study for study in (training.STUDY, binary.STUDY, bounds.STUDY)
}
ALL = "all"
MINE = "mine"


def named(
    name: str,
    *,
    model: nn.Module | str | None = None,
    data: Dataset | str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Sequence[Study]:
    """Return the study of a name, or all of them.

    Parameters
    ----------
    name : str
        One of `STUDIES`, ``"mine"``, or ``"all"``, which is also ``"mine"`` if a model and data are
        given.
    model : torch.nn.Module or str, optional
        For ``"mine"``: a network, or ``"module:factory"``, which makes it.
    data : Dataset, str or path, optional
        For ``"mine"``: what to measure it on: a data set, its name, an ``.npz`` file or a folder.
    root : path, optional
        Folder of the files of data that is given by name.
    seed : int
        Of the weights that a factory draws.

    Raises
    ------
    TypeError, ValueError
        Another name, a model without data or the reverse, those of another study, or such as cannot
        be measured.
    ImportError, OSError
        Data that cannot be read.
    """
    known = [*STUDIES, MINE, ALL]
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        message = f"name must be one of {', '.join(map(repr, known))}, got {name!r}{hint}."
        raise ValueError(message)
    absent = [word for word, value in (("model", model), ("data", data)) if value is None]
    if name in STUDIES and len(absent) < 2:  # noqa: PLR2004 - of two
        message = f"model and data are only for the study {MINE!r}, got them for {name!r}."
        raise ValueError(message)
    if absent and (name == MINE or len(absent) == 1):
        message = (
            f"{' and '.join(absent)} must be given for the study {MINE!r}, for example --model "
            "nets:make (the function make of nets.py, which returns the network) --data "
            "images.npz (with the arrays inputs and labels)."
        )
        raise ValueError(message)
    chosen = [STUDIES[name]] if name in STUDIES else []
    if name == ALL:
        chosen = list(STUDIES.values())
    if model is not None and data is not None:
        options = " --model MODULE:FACTORY --data DATA"
        if isinstance(model, str) and not isinstance(data, Dataset):
            options = f" --model {model} --data {os.fspath(data)}"
        network = given.load_model(model, seed=seed) if isinstance(model, str) else model
        held = data if isinstance(data, Dataset) else given.load_given(data, root=root)
        chosen.append(mine.study(network, held, options=options))
    return chosen


def reproduce(
    name: str,
    output: str | os.PathLike[str],
    *,
    model: nn.Module | str | None = None,
    data: Dataset | str | os.PathLike[str] | None = None,
    quick: bool = False,
    root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Conclusion:
    """Run one study and write what it found; interrupted and called again, it goes on.

    Parameters
    ----------
    name : str
        One of `STUDIES`, or ``"mine"``.
    output : path
        Folder for tables, figures, page and report, made with its parents.
    model : torch.nn.Module or str, optional
        For ``"mine"``: a network, or ``"module:factory"``, which makes it.
    data : Dataset, str or path, optional
        For ``"mine"``: what to measure it on: a data set, its name, an ``.npz`` file or a folder.
    quick : bool
        Stay within ten minutes on two cores.
    root : path, optional
        Folder of the files of MNIST and CIFAR-10, for studies that need them.
    seed : int
        Of every random stream; the same seed gives the same tables.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Conclusion
        Claims with their verdicts, and the figures.

    Raises
    ------
    TypeError, ValueError
        An unknown name, or ``"all"``, which is several; a model or data that cannot be measured.
    KeyboardInterrupt
        Interrupted; what is finished is kept.
    """
    study, *others = named(name, model=model, data=data, root=root, seed=seed)
    if others:
        message = f"name must be a single study, got {name!r}; call it for each of STUDIES."
        raise ValueError(message)
    return run(study, output, quick=quick, root=root, seed=seed, progress=progress)


def run(
    study: Study,
    output: str | os.PathLike[str],
    *,
    quick: bool = False,
    root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Conclusion:
    """Run a study as `reproduce` does."""
    folder = Path(output)
    # Runs with other settings keep their own: none of them undoes another.
    size: Size = "quick" if quick else "full"
    parts = folder / "parts" / "-".join(filter(None, (size, str(seed), study.given[:12])))
    parts.mkdir(parents=True, exist_ok=True)
    setting = Setting(size=size, seed=seed, root=None if root is None else Path(root), folder=parts)
    conclusion = None
    with one_core_spared(), progress_bar(study.title, show=progress) as tell:
        for state in iterate_study(study, setting, folder):
            conclusion = state.conclusion
            if not tell(state.fraction, state.text):
                raise KeyboardInterrupt
    assert conclusion is not None
    return conclusion
