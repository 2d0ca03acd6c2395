"""The command line: ``qwidgets demo | lab | sweep | export | figure | reproduce | doctor``.

Every command is a thin layer over the public functions, imported when the command runs, so that
``qwidgets --help`` answers at once. A fault is told in one sentence and ends with exit code 2;
``qwidgets --debug COMMAND`` shows where it came from.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import qwidgets as qw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwidgets.figure import Palette, Panel
    from qwidgets.plan import Size
    from qwidgets.training import Regularizer

_PACKAGE = Path(__file__).parent
_BUNDLE = ("index.js", "style.css", "page.js")
# Front-end part -> the widget class whose traits say which version of it Python expects.
_FRONT_ENDS = {
    "anywidget": ("anywidget", "AnyWidget"),
    "bqplot": ("bqplot", "Figure"),
    "bqscales": ("bqscales", "LinearScale"),
}
# What shells report for a program that Ctrl-C ended.
_INTERRUPTED = 130
_WIDGET_MANAGER = "@jupyter-widgets/jupyterlab-manager"


class _Commands(typer.core.TyperGroup):
    """Tells an expected fault of a command in one sentence."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            _say("Stopped before anything was finished.", style="yellow")
            raise typer.Exit(_INTERRUPTED) from error
        except (ImportError, MemoryError, OSError, TypeError, ValueError) as error:
            if ctx.params["debug"]:
                raise
            sentence = str(error)
            if isinstance(error, OSError) and error.filename is not None:
                sentence = f"{error.strerror}: {error.filename}"
            _say(sentence, style="red")
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Commands,
    name="qwidgets",
    help="The uncertainty principle of neural networks, made touchable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _say(text: str, style: str = "") -> None:
    """Write to standard error, which leaves standard output to the results."""
    Console(stderr=True).print(Text(text, style=style), soft_wrap=True)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(str(message), style="yellow")


def _version(value: bool) -> None:  # noqa: FBT001
    if value:
        typer.echo(f"qwidgets {qw.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a fault.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del debug, version  # read by the group and by the callback


_Data = Annotated[
    str, typer.Option(help="Data set: digits, moons, mnist, cifar10, temperature or friedman.")
]
_Model = Annotated[
    str, typer.Option(help="Network: mlp, conv, resnet, attention or encoder_decoder.")
]
_Numbers = Annotated[str | None, typer.Option(help="Grid, for example 0,0.1,0.3.")]
_Epochs = Annotated[int, typer.Option(help="Passes through the training images.")]
_Seed = Annotated[int, typer.Option(help="Seed of every random stream.")]
_Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@app.command()
def demo(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path(
        "build/demo.html"
    ),
    epochs: _Epochs = 20,
    seed: _Seed = 0,
    device: _Device = "auto",
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Train the default grid on digits and write an interactive page.

    Ctrl-C stops the training; the page then shows the epochs that are finished.
    """
    _check_output(output, free=not output.is_dir())
    result = qw.sweep(epochs=epochs, seed=seed, device=device)
    qw.export_html(result, output)
    typer.echo(output.resolve())
    if show:
        typer.launch(output.resolve().as_uri())


@app.command()
def sweep(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to save the sweep.")] = Path(
        "build/sweep"
    ),
    data: _Data = "digits",
    model: _Model = "mlp",
    epsilon: _Numbers = None,
    regularization: _Numbers = None,
    regularizer: Annotated[
        str, typer.Option(help="gradient, weight_decay or label_smoothing.")
    ] = "gradient",
    epochs: _Epochs = 20,
    seed: _Seed = 0,
    device: _Device = "auto",
    root: Annotated[Path | None, typer.Option(help="Folder that holds the data files.")] = None,
    train_size: Annotated[
        str | None, typer.Option(metavar="N|all", help="How many images to train on.")
    ] = None,
    test_size: Annotated[
        str | None, typer.Option(metavar="N|all", help="How many images to measure on.")
    ] = None,
    width: Annotated[
        float | None, typer.Option(help="Window width of the packet, input units.")
    ] = None,
) -> None:
    """Train and measure a grid of networks, and save it as it goes.

    Whatever stops it, Ctrl-C or a lost power, the same command goes on where it was.
    """
    _check_output(output, free=not output.exists() or output.is_dir())
    qw.sweep(
        data=data,
        model=model,
        store=output,
        epsilon=_numbers("epsilon", epsilon),
        regularization=_numbers("regularization", regularization),
        regularizer=cast("Regularizer", regularizer),
        epochs=epochs,
        seed=seed,
        device=device,
        root=root,
        train_size=_size(train_size),
        test_size=_size(test_size),
        width=width,
    )
    typer.echo(output.resolve())


@app.command()
def export(
    source: Annotated[Path, typer.Argument(metavar="SWEEP", help="A saved sweep.")],
    page: Annotated[Path, typer.Argument(metavar="PAGE.html", help="The page to write.")],
    *,
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
    author: Annotated[list[str] | None, typer.Option(help="Who made it; may be repeated.")] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="Markdown file, with equations in LaTeX, to stand below the pictures."),
    ] = None,
    embed: Annotated[
        bool, typer.Option("--embed", help="Write a block for another page, an iframe.")
    ] = False,
) -> None:
    """Write a saved sweep as one interactive page that needs nothing else."""
    try:
        said = None if text is None else text.read_text("utf-8")
    except UnicodeDecodeError as error:
        msg = f"text must be a file in UTF-8, got {text} ({error.reason}); save it in UTF-8."
        raise ValueError(msg) from error
    sweep = qw.open_sweep(source)
    qw.export_html(sweep, page, title=title, authors=author, text=said, embed=embed)
    typer.echo(page.resolve())


@app.command()
def figure(
    source: Annotated[Path, typer.Argument(metavar="SWEEP", help="A saved sweep.")],
    *,
    panel: Annotated[
        str,
        typer.Option(help="plane, neighborhood, phase-space, tradeoff, curves, robustness or all."),
    ] = "plane",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write.", show_default="PANEL.svg"),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Adversarial radius, anywhere on the grid.")
    ] = None,
    regularization: Annotated[
        float | None, typer.Option(help="Regularization, anywhere on the grid.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Class, by name or by index.")] = None,
    epoch: Annotated[
        int | None, typer.Option(help="Epoch.", show_default="the last finished one")
    ] = None,
    attack_epsilon: Annotated[
        float | None, typer.Option(help="Attack radius of robust accuracy.")
    ] = None,
    width: Annotated[
        float | None, typer.Option(help="Width, mm.", show_default="89, a plate 183")
    ] = None,
    height: Annotated[float | None, typer.Option(help="Height, mm.")] = None,
    font_size: Annotated[float, typer.Option(help="Size of the type, points.")] = 7.0,
    palette: Annotated[str, typer.Option(help="light, dark or print.")] = "light",
) -> None:
    """Draw a panel of a saved sweep for a paper, as SVG at one position of the sliders."""
    sweep = qw.open_sweep(source)
    # A class whose name is a number is meant by its name.
    names = sweep.dataset.attrs["class_names"]
    chosen = int(label) if label is not None and label.isdecimal() and label not in names else label
    drawn = qw.figure(
        sweep,
        cast("Panel", panel),
        epsilon=epsilon,
        regularization=regularization,
        label=chosen,
        epoch=epoch,
        attack_epsilon=attack_epsilon,
        width=width,
        height=height,
        font_size=font_size,
        palette=cast("Palette", palette),
    )
    place = Path(f"{panel}.svg") if output is None else output
    drawn.save(place)
    typer.echo(place.resolve())
    _say(drawn.caption)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context) -> None:
    """Open the demo notebooks in JupyterLab; further options go to JupyterLab.

    From an installed package they are copied to ./qwidgets-notebooks first. A notebook that is
    there already is left as it is.
    """
    first = min(_notebooks().glob("*.ipynb"))
    command = [sys.executable, "-m", "jupyterlab", str(first), *context.args]
    with subprocess.Popen(command) as server:  # noqa: S603
        while True:
            try:
                raise typer.Exit(server.wait())
            except (
                KeyboardInterrupt
            ):  # is JupyterLab's to handle: it asks and shuts its kernels down
                continue


@app.command()
def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="training, binary, regions, tradeoff, bounds, regression, mine (a network of your "
            "own) or all.",
        ),
    ],
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Stay within ten minutes a study on two cores.")
    ] = False,
    root: Annotated[Path | None, typer.Option(help="Folder that holds the data files.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results, one below it a study.")
    ] = Path("build/studies"),
    seed: _Seed = 0,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FACTORY",
            help="For mine: what makes your torch.nn.Module, found from the current folder.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="For mine: an .npz file with inputs and labels, a folder with the files of MNIST "
            "or CIFAR-10, or the name of a data set.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="For mine: a state dict to load into the model, .pt or .safetensors."),
    ] = None,
) -> None:
    """Check claims of the papers: tables, figures, an interactive page, a verdict for each claim.

    Whatever stops it, the same command goes on where it was.
    """
    from qwidgets import studies

    chosen = studies.named(name, model=model, data=data, weights=weights, root=root)
    _check_output(output, free=not output.exists() or output.is_dir())
    missing = {study.name: studies.lacking(study, root) for study in chosen}
    if len(chosen) == 1 and missing[name]:
        message = f"data of the study {name!r} are missing: {missing[name]}"
        raise ValueError(message)
    for study in chosen:
        if missing[study.name]:
            _say(f"{study.name} is left out: {missing[study.name]}", style="yellow")
            continue
        if not quick:
            _say(f"{study.name}: {study.cost}.")
        folder = output / study.name
        try:
            found = studies.run(study, folder, quick=quick, root=root, seed=seed)
        except KeyboardInterrupt as error:
            _say("Stopped; what is finished is kept, the same command goes on.", style="yellow")
            raise typer.Exit(_INTERRUPTED) from error
        for claim in found.claims:
            _say(f"{claim.verdict}: {claim.text}")
        typer.echo((folder / "report.md").resolve())


@app.command()
def doctor() -> None:
    """Check what is installed, and say what to do about each fault."""
    findings = list(_examine())
    table = Table(title=f"qwidgets {qw.__version__}", title_justify="left")
    for heading in ("", "part", "found", "expected"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        mark = Text("fault", style="bold red") if finding.remedy else Text("ok", style="green")
        table.add_row(mark, finding.part, finding.found, finding.expected)
    console = Console()
    console.print(table)
    faults = [finding for finding in findings if finding.remedy]
    for fault in faults:
        console.print(Text(f"{fault.part}: {fault.remedy}", style="red"), soft_wrap=True)
    if faults:
        raise typer.Exit(1)
    console.print("Everything is in place.")


def _numbers(name: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        msg = (
            f"{name} must be numbers separated by commas, got {text!r}; "
            f"write for example --{name} 0,0.1,0.3."
        )
        raise ValueError(msg) from None


def _size(text: str | None) -> Size:
    """Take a number for one; anything else is the sweep's to take or to refuse."""
    if text is not None and text.removeprefix("-").isdecimal():
        return int(text)
    return cast("Size", text)


def _check_output(path: Path, *, free: bool) -> None:
    """Refuse an output before the training, not after it."""
    if not free:
        msg = f"output must be free, but {path} is something else; choose another with --output."
        raise FileExistsError(msg)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        msg = (
            f"output must be a place that can be written, got {path} ({error.strerror}); "
            "choose another with --output."
        )
        raise OSError(msg) from error


def _notebooks() -> Path:
    """Return the folder of the demo notebooks, one in which they may be edited."""
    packaged = _PACKAGE / "notebooks"
    if not packaged.exists():  # a checkout
        return _PACKAGE.parent / "demo_notebooks"
    folder = Path("qwidgets-notebooks")
    # With their pictures, which running them draws anew.
    for source in [*packaged.glob("*.ipynb"), *packaged.glob("images/*")]:
        place = folder / source.relative_to(packaged)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            shutil.copy(source, place)
    return folder


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """A part of the installation; a part with a remedy has a fault."""

    part: str
    found: str
    expected: str = ""
    remedy: str = ""


def _examine() -> Iterator[_Finding]:
    yield from _examine_packages()
    yield from _examine_bundle()
    yield from _examine_front_ends()
    yield from _examine_device()


def _examine_packages() -> Iterator[_Finding]:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    about = metadata.metadata("qwidgets")
    python = SpecifierSet(about["Requires-Python"])
    version = platform.python_version()
    remedy = "" if version in python else f"use Python {python}."
    yield _Finding(part="python", found=version, expected=str(python), remedy=remedy)
    requirements = [Requirement(text) for text in metadata.requires("qwidgets") or []]
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, supported = requirement.name, requirement.specifier
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = "missing"
        fits = version != "missing" and supported.contains(version, prereleases=True)
        remedy = "" if fits else f"run: python -m pip install '{name}{supported}'"
        yield _Finding(part=name, found=version, expected=str(supported), remedy=remedy)


def _examine_bundle() -> Iterator[_Finding]:
    missing = [name for name in _BUNDLE if not (_PACKAGE / "static" / name).is_file()]
    yield _Finding(
        part="qwidgets front end",
        found=f"missing: {', '.join(missing)}" if missing else "present",
        expected=", ".join(_BUNDLE),
        remedy="install qwidgets again; in a checkout run: make install" if missing else "",
    )


def _examine_front_ends() -> Iterator[_Finding]:
    """Compare the JavaScript of each plotting package with what its Python half asks for."""
    if find_spec("jupyterlab_server") is None:
        return  # JupyterLab is missing, as its own line says
    from jupyter_core.paths import jupyter_path
    from jupyterlab_server.config import get_federated_extensions, get_page_config

    folders = jupyter_path("labextensions")
    installed = get_federated_extensions(folders)
    disabled = get_page_config(folders).get("disabledExtensions", [])
    for part in (*_FRONT_ENDS, _WIDGET_MANAGER):
        if part == "bqscales" and find_spec(part) is None and not _bqplot_needs(part):
            continue  # bqplot 0.12 has its scales itself
        package = part if part in _FRONT_ENDS else "jupyterlab_widgets"
        reinstall = f"run: python -m pip install --force-reinstall --no-deps {package}"
        version = installed[part]["version"] if part in installed else "missing"
        wanted = _wanted_version(part)
        if part not in installed or not _fits(version, wanted):
            remedy = reinstall
        elif any(name == part or name.startswith(f"{part}:") for name in disabled):
            version, remedy = f"{version}, disabled", f"run: jupyter labextension enable {part}"
        else:
            remedy = ""
        yield _Finding(
            part=f"{part} in JupyterLab", found=version, expected=wanted or "any", remedy=remedy
        )
        if part not in _FRONT_ENDS:
            continue
        # Exported pages inline this copy, and Voila and Notebook 7 may serve it.
        module = _nbextension(part)
        current = module is not None and f'"{version.split(",")[0]}"' in module.read_text("utf-8")
        yield _Finding(
            part=f"{part} in pages",
            found="missing" if module is None else version if current else "another version",
            expected=version,
            remedy="" if current else reinstall,
        )


def _bqplot_needs(package: str) -> bool:
    if find_spec("bqplot") is None:
        return False
    return any(need.startswith(package) for need in metadata.requires("bqplot") or [])


def _nbextension(part: str) -> Path | None:
    from jupyter_core.paths import jupyter_path

    found = (Path(folder) / part / "index.js" for folder in jupyter_path("nbextensions"))
    return next((path for path in found if path.is_file()), None)


def _wanted_version(part: str) -> str:
    """Return the range of front-end versions that the Python half asks for, '' for any."""
    module, name = _FRONT_ENDS.get(part, ("", ""))
    if not module or find_spec(module) is None:
        return ""
    widget = getattr(import_module(module), name)
    return str(widget.class_traits()["_model_module_version"].default_value)


def _fits(version: str, wanted: str) -> bool:
    """Tell whether a version lies in an npm range such as ``^0.6.1``, ``^0.3`` or ``~0.11.*``."""
    parts = [int(number) for number in re.findall(r"\d+", wanted)]
    have = [int(number) for number in re.findall(r"\d+", version)[:3]]
    if not parts:
        return bool(have)
    # A caret fixes the numbers up to the first that is not zero, a tilde the first two.
    leading = next((i for i, number in enumerate(parts) if number), len(parts) - 1)
    fixed = leading + 1 if wanted.startswith("^") else 2 if wanted.startswith("~") else len(parts)
    return have[:fixed] == parts[:fixed] and have >= parts


def _examine_device() -> Iterator[_Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        remedy = "run: python -m pip install --force-reinstall torch"
        yield _Finding(part="device", found=str(error), remedy=remedy)
        return
    cuda = torch.cuda.is_available()
    device = f"cuda ({torch.cuda.get_device_name()})" if cuda else "cpu"
    yield _Finding(part="device", found=device)
    yield _Finding(part="threads", found=str(torch.get_num_threads()))


if __name__ == "__main__":
    app()
