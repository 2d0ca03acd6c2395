"""Figures for papers, read as a reader does: from the ticks beside the axes to the marks."""

from __future__ import annotations

import base64
import math
import os
import re
import struct
import zlib
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from small import EPOCHS
from typer.testing import CliRunner

import qwidgets as qw
from qwidgets import cli, svg, views

PANELS = ["plane", "neighborhood", "phase-space", "tradeoff", "curves", "robustness"]
NOW, REFERENCE, BOUND, FRONT, EPOCH = "#0072b2", "#8b949e", "#d55e00", "#009e73", "#b36b00"
SVG, HREF = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
HOSTILE = [
    "</svg><script>alert(1)</script>",
    "\"'&amp;<!--]]>",
    "\u202eright to left\u2066",
    "null \x00, escape \x1b, half \ud800",
    "n" * 10_000,
]


def number(text):
    return float(text.replace("−", "-"))


class Sheet:
    """One panel: its axes, calibrated by two ticks each, and what is drawn in data units."""

    def __init__(self, figure, *, log):
        self.root = ET.fromstring(figure.svg)
        self.texts = ["".join(text.itertext()) for text in self.root.iter(f"{SVG}text")]
        self._scale = np.log if log else np.asarray
        self._value = np.exp if log else np.asarray
        ticks = [
            (float(text.get("x")), float(text.get("y")), text.text)
            for text in self.root.iter(f"{SVG}text")
            if not text.get("font-size") and re.fullmatch(r"−?[\d.]+", text.text or "")
        ]
        bottom = max(y for _, y, _ in ticks)
        self._x = self._calibrate([(x, text) for x, y, text in ticks if y == bottom])
        # The baseline of a number lies 0.35 of its size below its tick.
        self._y = self._calibrate([(y - 0.35 * 7, text) for _, y, text in ticks if y != bottom])

    def _calibrate(self, ticks):
        (a, first), (b, last) = ticks[0], ticks[-1]
        low, high = (self._scale(number(text)) for text in (first, last))
        return lambda places: self._value(
            low + (np.asarray(places, float) - a) / (b - a) * (high - low)
        )

    def data(self, x, y):
        return np.column_stack([self._x(x), self._y(y)])

    def _drawn(self, tag, **attributes):
        """Elements of the plot area: those of the key are inside a moved group."""
        (panel,) = (g for g in self.root.iter(f"{SVG}g") if "transform" in g.attrib and len(g) > 5)
        return [
            element
            for element in panel.findall(SVG + tag)
            if all(element.get(name.replace("_", "-")) == v for name, v in attributes.items())
        ]

    def dots(self, **attributes):
        found = self._drawn("circle", **attributes)
        return self.data([c.get("cx") for c in found], [c.get("cy") for c in found])

    def square(self):
        found = list(self._drawn("rect", stroke=REFERENCE))
        middle = [
            [float(r.get(a)) + float(r.get(size)) / 2 for r in found]
            for a, size in (("x", "width"), ("y", "height"))
        ]
        return self.data(*middle)

    def lines(self, **attributes):
        return [
            self.data(*np.array(re.findall(r"[ML](\S+) (\S+?)(?=[LMZ]|$)", p.get("d"))).T)
            for p in self._drawn("path", **attributes)
        ]


def close(found, expected, tolerance=2e-3):
    """Equal to what a hundredth of a point is on these axes, and a text of three digits."""
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def reading(dataset, name, **at):
    return float(dataset[name].sel(at, method="nearest"))


# Numbers


@pytest.mark.parametrize(("panel", "prefix"), [("plane", ""), ("neighborhood", "neighborhood_")])
def test_planes_show_the_numbers_of_the_cube(sweep, panel, prefix):
    figure = qw.figure(sweep, panel, epsilon=0.1, regularization=0.3, label=3)
    sheet, cube = Sheet(figure, log=True), sweep.dataset
    names = [f"{prefix}{name}_std" for name in ("position", "momentum")]
    at = {"epsilon": 0.1, "regularization": 0.3, "epoch": EPOCHS, "label": 3}
    now = [reading(cube, name, **at) for name in names]
    close(sheet.dots(stroke=NOW, fill=NOW), [now])
    clean = at | {"epsilon": 0, "regularization": 0}
    close(sheet.square(), [[reading(cube, name, **clean) for name in names]])
    networks = sheet.dots(fill_opacity="0.75")
    expected = [cube[name].isel(epoch=-1, label=3).values.ravel() for name in names]
    close(networks, np.transpose(expected))
    trail, across, up = sheet.lines(stroke=NOW)
    expected = [cube[n].sel(epsilon=0.1, regularization=0.3, label=3).values for n in names]
    defined = np.isfinite(expected).all(0)
    close(trail, np.transpose(expected)[defined])
    (dx, dy) = (reading(cube, f"{name}_error", **at) for name in names)
    close(across, [[now[0] - dx, now[1]], [now[0] + dx, now[1]]])
    close(up, [[now[0], now[1] - dy], [now[0], now[1] + dy]])
    (bound,) = sheet.lines(stroke=BOUND)
    value = reading(cube, "neighborhood_bound", **at) if prefix else 0.5
    close(bound.prod(1), [value, value], 5e-3)


def test_the_excess_colours_the_networks(sweep):
    figure = qw.figure(sweep, "plane", label=7)
    dots = [c for c in ET.fromstring(figure.svg).iter(f"{SVG}circle") if c.get("fill-opacity")]
    product = sweep.dataset.uncertainty_product.isel(epoch=-1, label=7).values.ravel()
    red = [int(dot.get("fill")[1:3], 16) for dot in dots]
    order = np.argsort(product)
    assert len(red) == 9
    assert (np.diff(np.array(red)[order]) >= 0).all() or product.max() > 0.6
    assert f"{100 * views.limits(sweep.dataset).excess:.0f}%" in Sheet(figure, log=True).texts


def test_tradeoff_shows_the_numbers_of_the_cube(sweep):
    cube = sweep.dataset
    figure = qw.figure(sweep, "tradeoff", epsilon=0.3, regularization=0.03, attack_epsilon=0.075)
    sheet = Sheet(figure, log=False)
    # 0.075 is half of the way from 0.05 to 0.1.
    robust = cube.robust_accuracy.sel(attack_epsilon=[0.05, 0.1], method="nearest").mean(
        "attack_epsilon"
    )
    last, at = {"epoch": EPOCHS}, {"epsilon": 0.3, "regularization": 0.03, "epoch": EPOCHS}
    clean = cube.clean_accuracy.sel(last).values.ravel()
    close(sheet.dots(fill_opacity="0.75"), np.transpose([clean, robust.sel(last).values.ravel()]))
    now = [float(cube.clean_accuracy.sel(at)), float(robust.sel(at))]
    close(sheet.dots(stroke=NOW), [now])
    across, up = sheet.lines(stroke=NOW)
    error = float(cube.clean_accuracy_error.sel(at))
    close(across[:, 0], np.clip([now[0] - error, now[0] + error], None, 1))
    robust_error = cube.robust_accuracy_error.sel(at).sel(
        attack_epsilon=[0.05, 0.1], method="nearest"
    )
    error = float(robust_error.mean())
    close(up[:, 1], np.clip([now[1] - error, now[1] + error], 0, 1))
    beaten = sheet.lines(stroke=FRONT)[0]
    assert (np.diff(beaten[:, 0]) >= 0).all()
    assert (np.diff(beaten[:, 1]) <= 0).all()


def test_curves_show_the_numbers_of_the_cube(sweep):
    figure = qw.figure(sweep, "curves", epsilon=0.1, regularization=0, attack_epsilon=0.1, epoch=1)
    sheet, cube = Sheet(figure, log=False), sweep.dataset
    network = cube.sel(epsilon=0.1, regularization=0).sel(attack_epsilon=0.1, method="nearest")
    clean, robust = sheet.lines(stroke=NOW)
    close(clean, np.transpose([range(EPOCHS + 1), network.clean_accuracy.values]))
    close(robust, np.transpose([range(EPOCHS + 1), network.robust_accuracy.values]))
    band = sheet.lines(fill=NOW, fill_opacity="0.2")[0]
    low, high = band[: EPOCHS + 1, 1], band[EPOCHS + 1 :, 1][::-1]
    close((high - low) / 2, network.clean_accuracy_error.values)
    grey = sheet.lines(stroke=REFERENCE)[0]
    close(grey[:, 1], cube.clean_accuracy.values[0, 0])
    close(sheet.lines(stroke=EPOCH)[0], [[1, 0], [1, 1]])


def test_robustness_shows_the_numbers_of_the_cube(sweep):
    figure = qw.figure(sweep, "robustness", epsilon=0.2, regularization=0, epoch=1)
    sheet, cube = Sheet(figure, log=False), sweep.dataset.sel(epoch=1, regularization=0)
    # 0.2 is half of the way from 0.1 to 0.3.
    between = cube.sel(epsilon=[0.1, 0.3]).mean("epsilon")
    (line,) = sheet.lines(stroke=NOW)
    close(line, np.transpose([cube.attack_epsilon, between.robust_accuracy]))
    (grey,) = sheet.lines(stroke=REFERENCE)
    close(grey[:, 1], cube.robust_accuracy.sel(epsilon=0).values)
    assert "ε 0.20, λ 0.00, interpolated" in sheet.texts


def test_phase_space_is_that_of_the_packet(sweep):
    figure = qw.figure(sweep, "phase-space", epsilon=0.1, regularization=0.3, label=5)
    root = ET.fromstring(figure.svg)
    (image,) = root.iter(f"{SVG}image")
    pixels = decoded(image.get(HREF))
    t = np.array(views.plot_axes(sweep.dataset)["t"])
    psi = sweep.dataset.packet.sel(epsilon=0.1, regularization=0.3, epoch=EPOCHS, label=5)
    density = psi.sel(t=t).values ** 2
    # Integrated over the momentum the Wigner function is the density: darkest where it peaks.
    darkness = 255.0 - pixels.mean(-1)
    column = int(darkness.sum(0).argmax())
    peak = t[density.argmax()]
    assert abs(np.linspace(t[0], t[-1], pixels.shape[1])[column] - peak) < 0.15
    # Even in the momentum; a packet's own edge is paper.
    np.testing.assert_array_equal(pixels, pixels[::-1])
    assert (pixels[0, 0] > 250).all()
    # The marginal above peaks over the same place.
    curve = max(
        (p for p in root.iter(f"{SVG}path") if p.get("stroke") == NOW),
        key=lambda p: np.ptp(points(p)[:, 0]),
    )
    above = points(curve)
    left, width = float(image.get("x")), float(image.get("width"))
    top = above[above[:, 1].argmin(), 0]
    assert t[0] + (top - left) / width * (t[-1] - t[0]) == pytest.approx(peak, abs=1e-2)


def points(path):
    return np.array(re.findall(r"[ML](\S+) (\S+?)(?=[LMZ]|$)", path.get("d")), float)


def decoded(address):
    """Pixels of a PNG whose lines are differences to the line above."""
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed = 8, b""
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        content = data[at + 8 : at + 8 + length]
        (check,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert check == zlib.crc32(kind + content)
        if kind == b"IHDR":
            columns, rows, depth, color = struct.unpack(">IIBB", content[:10])
            assert (depth, color) == (8, 2)
        packed += content if kind == b"IDAT" else b""
        at += 12 + length
    lines = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(rows, -1)
    assert set(lines[:, 0].tolist()) == {2}
    return np.cumsum(lines[:, 1:], axis=0, dtype=np.uint8).reshape(rows, columns, 3)


@pytest.mark.parametrize("panel", ["plane", "neighborhood", "tradeoff"])
def test_the_dot_is_hollow_between_networks(sweep, panel):
    sheet = Sheet(
        qw.figure(sweep, panel, epsilon=0.05, regularization=0.03), log=panel != "tradeoff"
    )
    assert len(sheet.dots(stroke=NOW, fill="#ffffff")) == 1
    assert len(sheet.dots(stroke=NOW, fill=NOW)) == 0
    assert "ε 0.05, λ 0.03, interpolated" in sheet.texts


def test_the_caption_says_what_is_drawn(sweep):
    figure = qw.figure(sweep, "all", epsilon=0.1, regularization=0.03, label=3)
    at = {"epsilon": 0.1, "regularization": 0.03, "label": 3, "epoch": EPOCHS}
    momentum, error = (
        reading(sweep.dataset, f"momentum_std{kind}", **at) for kind in ("", "_error")
    )
    assert f"σp = {views.with_error(momentum, error)}" in figure.caption
    assert "digits" in figure.caption
    assert "ε 0.10, λ 0.03" in figure.caption
    assert "class 3, epoch 2" in figure.caption
    root = ET.fromstring(figure.svg)
    description = root.find(f"{SVG}desc").text
    assert figure.caption in description
    assert sweep.dataset.attrs["data_checksum"] in description


def test_a_failed_network_is_left_out(sweep):
    broken = qw.Sweep(sweep.dataset.copy(deep=True), sweep.settings, {}, None)
    for name, values in broken.dataset.items():
        if values.dtype == float and "epsilon" in values.dims:
            broken.dataset[name][0, 1] = np.nan
    for panel in [*PANELS, "all"]:
        root = ET.fromstring(qw.figure(broken, panel, regularization=0.03).svg)
        assert "nan" not in " ".join(v for e in root.iter() for v in e.attrib.values())
    sheet = Sheet(qw.figure(broken, "plane", regularization=0.03), log=True)
    assert len(sheet.dots(fill_opacity="0.75")) == 8
    assert len(sheet.dots(stroke=NOW)) == 0
    assert "σx = –" in qw.figure(broken, "plane", regularization=0.03).caption


# The file


@pytest.mark.parametrize("panel", [*PANELS, "all"])
@pytest.mark.parametrize("palette", ["light", "dark", "print"])
def test_a_figure_stands_alone(sweep, panel, palette):
    figure = qw.figure(sweep, panel, epsilon=0.1, palette=palette)
    root = ET.fromstring(figure.svg)
    assert figure._repr_svg_() == figure.svg
    attributes = [(e.tag, name, v) for e in root.iter() for name, v in e.attrib.items()]
    # Beside another one in a page nothing clashes, and nothing is fetched.
    assert not [a for a in attributes if a[1] in ("id", "class", "style")]
    assert all(
        v.startswith("data:image/png;base64,") for _, name, v in attributes if "href" in name
    )
    assert "url(" not in figure.svg
    assert {e.tag.removeprefix(SVG) for e in root.iter()} <= {
        *("svg", "title", "desc", "g", "rect", "path", "circle", "text", "tspan", "image")
    }
    words = "".join(root.itertext())
    for title in ("Uncertainty plane", "Phase space"):
        assert (title in words) == (
            panel in ("all", title.lower().replace(" ", "-"), title.split()[-1])
        )
    again = qw.figure(sweep, panel, epsilon=0.1, palette=palette)
    assert again.svg == figure.svg


@pytest.mark.parametrize("panel", [*PANELS, "all"])
@pytest.mark.parametrize(
    "options", [{}, {"width": 60}, {"width": 140, "height": 60}, {"font_size": 9}]
)
def test_sizes_are_those_of_paper(sweep, panel, options):
    if panel == "all":
        options = options | {"width": 2 * options.get("width", 91.5)}
        options |= {"height": 120} if "height" in options else {}
    figure = qw.figure(sweep, panel, **options)
    root = ET.fromstring(figure.svg)
    wide = options.get("width", 89)
    assert (root.get("width"), root.get("height")) == (f"{wide:g}mm", f"{figure.height:.4g}mm") or (
        abs(float(root.get("height")[:-2]) - figure.height) < 0.01
    )
    assert figure.width == wide
    left, top, width, height = map(float, root.get("viewBox").split())
    assert (left, top) == (0, 0)
    assert width == pytest.approx(wide / 25.4 * 72, abs=0.01)
    assert height == pytest.approx(figure.height / 25.4 * 72, abs=0.01)
    (drawing,) = (g for g in root if g.get("font-size"))
    assert float(drawing.get("font-size")) == options.get("font_size", 7)


def test_nothing_lies_outside_of_the_sheet(sweep):
    for panel in PANELS:
        for epoch in range(EPOCHS + 1):
            if panel == "neighborhood" and epoch < EPOCHS:
                continue
            figure = qw.figure(sweep, panel, epsilon=0.3, epoch=epoch, label=9)
            root = ET.fromstring(figure.svg)
            _, _, width, height = map(float, root.get("viewBox").split())
            for path in root.iter(f"{SVG}path"):
                found = points(path)
                assert found.min() >= -10  # samples of the key lie around their own origin
                assert (found <= (width, height)).all()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_words(name):
    rng = np.random.default_rng(0)
    inputs = rng.uniform(size=(90, 2))
    labels = (inputs[:, 0] > inputs[:, 1]).astype(int)
    data = qw.Dataset.from_arrays(inputs, labels, name=name, class_names=[name, "other"])
    sweep = qw.sweep(
        data=data,
        model=lambda: torch.nn.Sequential(
            torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
        ),
        epsilon=[0, 0.1],
        regularization=[0],
        attack_epsilon=[0, 0.1],
        epochs=1,
        attack_steps=1,
        probe_images=1,
        width=0.2,
        progress=False,
    )
    figure = qw.figure(sweep, "plane", label=0)
    root = ET.fromstring(figure.svg.encode())
    assert not list(root.iter("script")) + list(root.iter(f"{SVG}script"))
    shown = re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd]", "\ufffd", views.one_line(name))
    assert shown in root.find(f"{SVG}desc").text
    (line,) = (
        t for t in map("".join, (e.itertext() for e in root.iter(f"{SVG}text"))) if "class" in t
    )
    # Without what would turn the line, and cut to what there is room for.
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", line)
    assert line.endswith(", epoch 1")
    assert len(line) < 60


def test_saved_whole_or_not_at_all(sweep, tmp_path, monkeypatch):
    figure = qw.figure(sweep, "robustness")
    place = tmp_path / "figure.svg"
    assert figure.save(place) == place
    ET.parse(place)
    assert figure.svg in place.read_text("utf-8")
    write = Path.write_text

    def half(path, text, *arguments):
        write(path, text[: len(text) // 2], *arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space left on device"):
        qw.figure(sweep, "curves").save(place)
    monkeypatch.undo()
    assert figure.svg in place.read_text("utf-8")
    assert os.listdir(tmp_path) == ["figure.svg"]  # noqa: PTH208
    with pytest.raises(FileNotFoundError, match="folder that exists"):
        figure.save(tmp_path / "missing" / "figure.svg")
    with pytest.raises(TypeError, match="path must be the name of a file"):
        figure.save(3)


@pytest.mark.parametrize("name", ["figure.png", "figure.pdf", "figure.svgz", "fig.1"])
def test_no_other_format_is_promised_by_a_name(sweep, tmp_path, name):
    place = tmp_path / name
    place.write_text("precious")
    figure = qw.figure(sweep, "robustness")
    with pytest.raises(ValueError, match=rf"end in .svg, .*{name}; name it fig\w*.svg, and conv"):
        figure.save(place)
    assert place.read_text() == "precious"
    for taken in ("figure", "figure.SVG"):
        assert ET.parse(figure.save(tmp_path / taken))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"panel": "plan"}, ValueError, "did you mean 'plane'"),
        ({"panel": 3}, ValueError, "one of .plane., .neighborhood."),
        ({"palette": "drak"}, ValueError, "did you mean 'dark'"),
        (
            {"epsilon": 0.31},
            ValueError,
            "epsilon must be from 0 to 0.3, on the trained grid; got 0.31",
        ),
        ({"epsilon": math.nan}, ValueError, "epsilon must be from 0 to 0.3.*got nan"),
        ({"epsilon": "0.1"}, TypeError, "epsilon must be a number.*got '0.1'"),
        ({"regularization": -1}, ValueError, "regularization must be from 0 to 0.3"),
        (
            {"attack_epsilon": 2},
            ValueError,
            "attack_epsilon must be from 0 to 0.2, among the measured",
        ),
        ({"label": 10}, ValueError, "label must be a class, by index or by name, 0 to 9; got 10"),
        ({"label": "ten"}, ValueError, "label must be one of .*, got 'ten'"),
        ({"label": True}, TypeError, "label must be a class"),
        ({"epoch": 3}, ValueError, "epoch must be a finished epoch, 0 to 2; got 3"),
        ({"epoch": -1}, ValueError, "epoch must be a finished epoch, 0 to 2; got -1"),
        ({"epoch": 1.5}, TypeError, "epoch must be a finished epoch, a whole number; got 1.5"),
        ({"panel": "neighborhood", "epoch": 1}, ValueError, "take the last epoch, or train with"),
        ({"width": 5}, ValueError, "width must be from 30 to 2000"),
        ({"font_size": 0}, ValueError, "font_size must be from 3 to 30"),
        ({"width": 40, "font_size": 25}, ValueError, "make the figure larger or font_size smaller"),
    ],
)
def test_bad_calls_say_what_to_do(sweep, arguments, error, words):
    with pytest.raises(error, match=words):
        qw.figure(sweep, **arguments)


def test_neighborhoods_that_were_never_measured_are_refused(sweep):
    without = qw.Sweep(sweep.dataset.drop_vars(list(views.DETAIL)), sweep.settings, {}, None)
    with pytest.raises(ValueError, match="train with detail='last-epoch'"):
        qw.figure(without, "neighborhood")
    drawn = qw.figure(without, "all")
    assert "Class neighbourhood" not in drawn.svg
    assert drawn.svg.count('font-weight="bold"') == 5


def test_a_source_without_numbers_is_refused(sweep):
    with pytest.raises(TypeError, match="sweep must be a Sweep.*got str"):
        qw.figure("digits.sweep")
    nothing = qw.Sweep(sweep.dataset.isel(epoch=[]), sweep.settings, {}, None)
    with pytest.raises(ValueError, match="at least one finished epoch"):
        qw.figure(nothing)


def test_of_an_explorer_its_position_is_drawn(sweep):
    explorer = qw.Explorer(sweep)
    try:
        explorer.epsilon, explorer.label, explorer.epoch = 0.1, 4, 1
        shown = qw.figure(explorer, "plane")
        assert shown.svg == qw.figure(sweep, "plane", epsilon=0.1, label=4, epoch=1).svg
        assert qw.figure(explorer, "plane", label="6").svg != shown.svg
    finally:
        explorer.close()


# The command


def test_the_command_draws_what_the_function_draws(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep.save("digits.sweep")
    options = ["--epsilon", "0.1", "--label", "3", "--palette", "print", "-o", "out.svg"]
    answer = CliRunner().invoke(cli.app, ["figure", "digits.sweep", "--panel", "plane", *options])
    assert answer.exit_code == 0, answer.stderr
    assert answer.stdout.strip() == str(tmp_path / "out.svg")
    drawn = qw.figure(sweep, "plane", epsilon=0.1, label="3", palette="print")
    assert drawn.svg in (tmp_path / "out.svg").read_text("utf-8")
    assert drawn.caption in answer.stderr
    assert CliRunner().invoke(cli.app, ["figure", "digits.sweep", "--panel", "all"]).exit_code == 0
    assert (tmp_path / "all.svg").is_file()
    answer = CliRunner().invoke(cli.app, ["figure", "digits.sweep", "--label", "12"])
    assert answer.exit_code == 2
    assert "label must be a class, by index or by name, 0 to 9; got 12." in answer.stderr
    assert not (tmp_path / "plane.svg").exists()
    answer = CliRunner().invoke(cli.app, ["figure", "digits.sweep", "-o", "plane.png"])
    assert answer.exit_code == 2
    assert "got plane.png; name it plane.svg" in answer.stderr
    assert not (tmp_path / "plane.png").exists()


@pytest.mark.parametrize(
    ("ticks", "longest"), [([1, 2], 1), ([0.005, 2], 5), ([-0.00025, 1000], 8)]
)
def test_the_title_of_an_upright_axis_keeps_off_the_longest_word_at_its_ticks(ticks, longest):
    size = 10
    style = svg.Type(size, "#000", "#000", "#000", "#000", 1)
    x, y = (svg.Scale(min(ticks), max(ticks), ticks, name, name) for name in ("across", "up"))
    elements = [ET.fromstring(part) for part in svg.Axes(80, 0, 100, 100, x, y).frame(style)]
    words = [e for e in elements if e.tag == "text"]
    (title,) = (e for e in words if e.text == "up")
    place = float(re.match(r"translate\(([-\d.]+)", title.get("transform"))[1])
    beside = [e for e in words if e.get("text-anchor") == "end"]
    assert max(len(e.text) for e in beside) == longest
    # Below its line an index hangs, and a digit is 0.6 of its size wide at most.
    assert min(float(e.get("x")) - 0.6 * size * len(e.text) for e in beside) > place + 0.3 * size


def test_an_index_stands_below_the_line_and_what_follows_on_it():
    text = ET.fromstring(f"<text>{svg.label('bound σxσp = ½', 10)}</text>")
    assert "".join(text.itertext()) == "bound σxσp = ½"
    # Each character's height over the line: the sum of all shifts so far.
    heights, shift = {}, 0.0
    for part in text:
        shift += float(part.get("dy", 0))
        heights[part.text] = round(shift, 6)
    assert heights == {"σ": 0, "x": 2.2, "p": 2.2, " = ½": 0}
