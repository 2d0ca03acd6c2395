"""Charts: what is drawn stands where its numbers say, and bad calls are refused."""

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

import qwidgets as qw

X = np.linspace(0, 1, 11)


def elements(figure, tag):
    return list(ET.fromstring(figure.svg).iter(f"{{http://www.w3.org/2000/svg}}{tag}"))


def texts(figure):
    return ["".join(element.itertext()) for element in elements(figure, "text")]


def path_points(element):
    numbers = re.findall(r"[ML]([-\d.]+) ([-\d.]+)", element.get("d"))
    return np.array(numbers, dtype=float)


def test_a_straight_line_is_straight_and_fills_its_axes():
    figure = qw.chart({"line": (X, 3 * X)}, x="t", y="l", x_limits=(0, 1), y_limits=(0, 3))
    (line,) = [e for e in elements(figure, "path") if e.get("stroke") == "#0072b2"][:1]
    points = path_points(line)
    assert len(points) == len(X)
    across, up = np.diff(points, axis=0).T
    assert np.ptp(across) < 0.03
    assert np.ptp(up) < 0.03
    assert (up < 0).all()
    assert {"t", "l", "line"} <= set(texts(figure))


def test_a_power_law_is_straight_on_logarithmic_axes():
    x = np.geomspace(0.1, 10, 9)
    figure = qw.chart({"bound": (x, 0.5 / x)}, x="σx", y="σp", log="xy")
    line = next(e for e in elements(figure, "path") if e.get("stroke") == "#0072b2")
    across, up = np.diff(path_points(line), axis=0).T
    assert np.ptp(up / across) < 0.01


def test_errors_are_bands_and_bars():
    band = qw.Curve(X, X, 0.1 + 0 * X)
    bars = qw.Curve(X, 1 - X, 0.1 + 0 * X, style="dots")
    figure = qw.chart({"band": band, "bars": bars}, x="t", y="l")
    filled = [e for e in elements(figure, "path") if e.get("fill") == "#0072b2"]
    assert len(filled) == 1
    assert len(path_points(filled[0])) == 2 * len(X)
    vertical = [
        e
        for e in elements(figure, "path")
        if e.get("stroke") == "#d55e00" and np.ptp(path_points(e)[:, 0]) == 0
    ]
    assert len(vertical) == len(X)


def test_points_beyond_the_ends_and_undefined_ones_are_left_out():
    y = np.where(X > 0.5, np.nan, X)
    figure = qw.chart({"curve": (X, y)}, x="t", y="l", x_limits=(0.15, 1), y_limits=(0, 1))
    line = next(e for e in elements(figure, "path") if e.get("stroke") == "#0072b2")
    assert len(path_points(line)) == 4  # 0.2, 0.3, 0.4, 0.5


def test_a_density_has_its_signs_in_colour():
    x, y = np.linspace(-1, 1, 21), np.linspace(-2, 2, 31)
    figure = qw.chart({}, x="t", y="k", density=(x, y, np.outer(x, np.ones(31))))
    (image,) = elements(figure, "image")
    assert image.get("{http://www.w3.org/1999/xlink}href").startswith("data:image/png;base64,")


def test_dots_stand_out_of_a_map_by_an_edge():
    dots = {"dots": qw.Curve([0.5], [0.5], style="dots")}
    plain = elements(qw.chart(dots, x="t", y="l", x_limits=(0, 1)), "circle")
    over = elements(qw.chart(dots, x="t", y="l", density=(X, X, np.ones((11, 11)))), "circle")
    assert [dot.get("stroke") for dot in plain] == [None, None]
    # The dot, and its sample in the key.
    assert [dot.get("stroke") is None for dot in over] == [False, True]


def test_curves_have_the_colour_that_they_ask_for():
    curves = {
        "a": qw.Curve(X, X, color=2),
        "b": qw.Curve(X, 2 * X),
        "c": qw.Curve(X, 3 * X, color=2),
        "d": qw.Curve(X, 4 * X),
    }
    strokes = [e.get("stroke") for e in elements(qw.chart(curves, x="t", y="l"), "path")]
    drawn = [stroke for stroke in strokes if stroke in {"#0072b2", "#d55e00", "#009e73"}]
    assert drawn[:4] == ["#009e73", "#0072b2", "#009e73", "#d55e00"]
    # Beside a bound, whose colour is left out of the cycle, the number means the same colour.
    bounded = qw.chart(curves, x="t", y="l", forbidden_below=(X, X / 2))
    assert sum(e.get("stroke") == "#009e73" for e in elements(bounded, "path")) >= 2


def test_names_stand_in_the_place_of_numbers():
    dots = {"_dots": qw.Curve([0, 1, 2], [1, 2, 3], style="dots")}
    figure = qw.chart(dots, x="kind", y="l", x_names=["one", "two <b>", "three"])
    assert {"one", "two <b>", "three"} <= set(texts(figure))
    across = [float(dot.get("cx")) for dot in elements(figure, "circle")]
    named = {
        "".join(e.itertext()): float(e.get("x")) for e in elements(figure, "text") if e.get("x")
    }
    assert across == pytest.approx([named["one"], named["two <b>"], named["three"]], abs=0.02)


def test_hostile_words_stay_words():
    figure = qw.chart({"</svg><script>": (X, X)}, x="a & b", y="<c>", title="\x00\u202e</text>")
    assert not elements(figure, "script")
    assert "</svg><script>" in texts(figure)


def test_beside_keeps_each_figure_whole():
    one = qw.chart({"a": (X, X)}, x="t", y="l")
    sheet = qw.beside(one, one, one)
    assert sheet.width == pytest.approx(2 * one.width + 4)
    assert sheet.height == pytest.approx(2 * one.height + 4)
    root = ET.fromstring(sheet.svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    inner = [e for e in elements(sheet, "svg") if e is not root]
    assert len(elements(sheet, "svg")) == 4
    for element in inner[-3:]:
        x, y, w, h = (float(element.get(name)) for name in ("x", "y", "width", "height"))
        assert x + w <= width + 0.02
        assert y + h <= height + 0.02


@pytest.mark.parametrize("palettes", [["light"], ["dark"], ["print"], ["light", "dark"]])
def test_between_figures_is_their_common_ground(palettes):
    figures = [qw.chart({"a": (X, X)}, x="t", y="l", palette=palette) for palette in palettes]
    sheet = qw.beside(*figures, *figures)
    grounds = [e for e in ET.fromstring(sheet.svg) if e.get("width") == "100%"]
    if palettes in (["light"], ["dark"]):
        assert [e.get("fill") for e in grounds] == [figures[0].ground] == [sheet.ground]
    else:
        assert grounds == []
        assert sheet.ground is None


def test_the_same_numbers_give_the_same_file(tmp_path):
    first, second = (qw.chart({"a": (X, X**2)}, x="t", y="l").svg for _ in range(2))
    assert first == second
    path = qw.chart({"a": (X, X**2)}, x="t", y="l").save(tmp_path / "chart.svg")
    assert path.read_text(encoding="utf-8").startswith("<?xml")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: qw.Curve(X, X[1:]), "vectors of one length"),
        (lambda: qw.Curve(X, X, style="dotted"), "style must be one of"),
        (lambda: qw.chart({}, x="t", y="l"), "something to draw"),
        (lambda: qw.chart({"a": (X, 0 * X)}, x="t", y="l", log="y"), "no finite positive number"),
        (lambda: qw.chart({"a": (X, X)}, x="t", y="l", y_limits=(1, 1)), "first below the second"),
        (
            lambda: qw.chart({}, x="t", y="k", density=(X, X[:5], np.ones((5, 11)))),
            "transpose it",
        ),
        (lambda: qw.chart({"a": (X, X)}, x="t", y="l", palette="sepia"), "palette"),
        (qw.beside, "at least one"),
    ],
)
def test_bad_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
