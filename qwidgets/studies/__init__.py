"""Studies that make the claims of the papers checkable: ``qwidgets reproduce NAME``.

Each study is one file on the public functions of `qwidgets` alone, and ends in tables (CSV),
figures (SVG), an interactive page and a short text with a verdict for each claim.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import qwidgets as qw
from qwidgets.checks import one_of
from qwidgets.progress import progress_bar
from qwidgets.studies import binary, bounds, mine, regions, regression, tradeoff, training
from qwidgets.studies.study import Conclusion, Setting, Study, iterate_study
from qwidgets.sweep import one_core_spared

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from qwidgets.studies.study import Size

__all__ = ["MINE", "STUDIES", "Conclusion", "Study", "lacking", "named", "reproduce"]

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        training.STUDY,
        binary.STUDY,
        regions.STUDY,
        tradeoff.STUDY,
        bounds.STUDY,
        regression.STUDY,
    )
}
MINE = mine.NAME
ALL = "all"


def named(
    name: str,
    *,
    model: str | None = None,
    data: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Sequence[Study]:
    """Return the study of a name, or all of them.

    Parameters
    ----------
    name : str
        One of `STUDIES`, ``"mine"``, or ``"all"``; the last has ``"mine"`` if a model is given.
    model, data, weights, root
        For ``"mine"``; as for `reproduce`.

    Raises
    ------
    ValueError
        Another name, or a model, data or weights without the others or for another study.
    TypeError, ImportError, OSError
        A model or data that cannot be had; says what to do.
    """
    theirs = {"model": model, "data": data, "weights": weights}
    given = [key for key, value in theirs.items() if value is not None]
    if name == MINE or (name == ALL and given):
        if model is None or data is None:
            message = (
                f"{MINE!r} needs model and data, got {' and '.join(given) or 'neither'}; write for "
                f"example: qwidgets reproduce {MINE} --model networks:trained --data images.npz, "
                "for the function trained() in networks.py, and inputs and labels in the file."
            )
            raise ValueError(message)
        own = mine.study(model, data, weights=weights, root=root)
        return [own] if name == MINE else [*STUDIES.values(), own]
    if name == ALL:
        return list(STUDIES.values())
    if name in STUDIES and given:
        message = f"{given[0]} is for {MINE!r} alone, got it for {name!r}; leave it out."
        raise ValueError(message)
    one_of("name", name, [*STUDIES, MINE, ALL])
    return [STUDIES[name]]


def lacking(study: Study, root: str | os.PathLike[str] | None) -> str:
    """Say which data a study needs and cannot have, and what to do; nothing if it has all.

    Parameters
    ----------
    study : Study
    root : path or None
        Folder of the files of MNIST and CIFAR-10.
    """
    reasons = []
    for name in study.data:
        try:
            qw.load_data(name, root=root, train_size=1, test_size=1)
        except (OSError, ValueError) as error:
            reasons.append(str(error))
    return " ".join(reasons)


def reproduce(
    name: str,
    output: str | os.PathLike[str],
    *,
    quick: bool = False,
    root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    model: str | None = None,
    data: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Conclusion:
    """Run one study and write what it found; interrupted and called again, it goes on.

    Parameters
    ----------
    name : str
        One of `STUDIES`, or ``"mine"``: a network of your own.
    output : path
        Folder for tables, figures, page and report, made with its parents.
    quick : bool
        Stay within ten minutes on two cores.
    root : path, optional
        Folder of the files of MNIST and CIFAR-10, for studies that need them.
    seed : int
        Of every random stream; the same seed gives the same tables.
    model : str, optional
        For ``"mine"``: ``module:factory``, found as Python finds modules from the current folder; a
        function or class that returns a `torch.nn.Module` without arguments, or such a module. It
        may load its weights itself.
    data : str, optional
        For ``"mine"``: the name of a data set, a folder with the files of MNIST or CIFAR-10, or an
        ``.npz`` file with ``inputs`` and ``labels`` (all are measured) or ``test_inputs`` and
        ``test_labels``; it may hold ``class_names``, ``value_range``, and ``mean`` and ``std`` if
        the network was trained on ``(x - mean) / std``.
    weights : path, optional
        For ``"mine"``: a state dict to load into the model, by `torch.save` or as safetensors.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Conclusion
        Claims with their verdicts, and the figures.

    Raises
    ------
    ValueError
        An unknown name, or ``"all"``, which is several; data that are missing.
    TypeError, ImportError, OSError
        A model or data of your own that cannot be had.
    KeyboardInterrupt
        Interrupted; what is finished is kept.
    """
    study, *others = named(name, model=model, data=data, weights=weights, root=root)
    if others:
        message = f"name must be a single study, got {name!r}; call it for each of STUDIES."
        raise ValueError(message)
    missing = lacking(study, root)
    if missing:
        message = f"data of the study {name!r} are missing: {missing}"
        raise ValueError(message)
    return run(study, output, quick=quick, root=root, seed=seed, progress=progress)


def run(
    study: Study,
    output: str | os.PathLike[str],
    *,
    quick: bool,
    root: str | os.PathLike[str] | None,
    seed: int,
    progress: bool = True,
) -> Conclusion:
    """Do what `reproduce` does, of a study whose data are there.

    Parameters
    ----------
    study : Study
    output, quick, root, seed, progress
        As for `reproduce`.

    Returns
    -------
    Conclusion
    """
    folder = Path(output)
    # Runs with other settings keep their own: none of them undoes another.
    size: Size = "quick" if quick else "full"
    parts = folder / "parts" / f"{size}-{seed}"
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
