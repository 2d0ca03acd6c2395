"""How an uncertainty shows itself: text, table, maps, xarray."""

from __future__ import annotations

import base64
import re
import zlib
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

import qwidgets as qw
from qwidgets.moments import UncertaintyWarning
from qwidgets.table import _png, with_error


def loss(x):
    return softplus(3 * x[:, 0] - x[:, 1])


@pytest.fixture(scope="module")
def few():
    return qw.uncertainty(loss, qw.Box([0, 0], [1, 1]))


@pytest.fixture(scope="module")
def image():
    return qw.uncertainty(loss, qw.Gaussian(np.zeros(24), 0.5), input_shape=(2, 3, 4))


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.4812345, 0.00234, "0.4812 ± 0.0023"),
        (-12.3456, 0.5, "-12.35 ± 0.50"),
        (123.456, 12.3, "123 ± 12"),
        (12345.6, 1234.5, "1.235e+04 ± 1.2e+03"),
        (0.5, 1e-16, "0.5 (exact)"),
        (0.0, 1e-14, "0 (exact)"),
        (3e-9, 1e-12, "0.0000000030000 ± 0.0000000000010"),
        (1.0, np.inf, "1 ± inf"),
    ],
)
def test_numbers_carry_their_errors(value, error, shown):
    assert with_error(value, error) == shown


def test_text_shows_totals_and_directions(few):
    lines = repr(few).splitlines()
    assert lines[0].startswith("<Uncertainty: 2 directions, ")
    assert lines[1].startswith("total_position_std 0.")
    assert lines[3].split()[:2] == ["direction", "position_mean"]
    assert with_error(few.position_std[1], few.standard_error["position_std"][1]) in lines[5]
    assert "1 / input unit" in lines[6]
    assert len(lines) == 7


def test_many_directions_are_cut_to_those_of_largest_product(image):
    text = repr(image)
    assert "and 12 more, of smaller products" in text
    assert len(text.splitlines()) == 4 + 12 + 2
    first = int(text.splitlines()[4].split()[0])
    assert first == image.product.argmax() == 0


def test_the_table_is_well_formed_and_says_the_same(image):
    page = image._repr_html_()
    tree = ET.fromstring(page.replace("<br>", " "))
    assert tree.get("class") == "qw-uncertainty"
    rows = list(tree.iter("tr"))
    assert len(rows) == 1 + 12
    assert [cell.text for cell in rows[0]][:3] == ["direction", "position_mean", "position_std"]
    assert rows[1][0].text == "0"
    assert "and 12 more" in page
    # No colour of its own, so that it reads on light and dark pages.
    assert not re.search(r"color:(?!inherit)|background", page)


def test_maps_show_the_pixels(image):
    page = image._repr_html_()
    images = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert len(images) == 2
    assert 'alt="position_std of each pixel"' in page
    for code in images:
        data = base64.b64decode(code)
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert int.from_bytes(data[16:20]) == 4
        assert int.from_bytes(data[20:24]) == 3
    assert "data:image" not in qw.uncertainty(loss, qw.Gaussian([0, 0], 1))._repr_html_()


def test_the_palette_runs_from_dark_to_bright():
    data = base64.b64decode(_png(np.linspace(0, 1, 50)[None]))
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4])
    pixels = np.frombuffer(zlib.decompress(data[start : start + length]), np.uint8)[1:]
    brightness = pixels.reshape(50, 3) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) > 0).all()
    # A flat map has one colour and no division by zero.
    assert _png(np.ones((2, 2)))


def test_the_shape_may_come_with_the_loss():
    class Loss:
        input_shape = (1, 2, 2)

        def __call__(self, x):
            return loss(x)

    u = qw.uncertainty(Loss(), qw.Box(np.zeros(4), 1))
    assert u.input_shape == (1, 2, 2)
    assert u.to_xarray().position_std.dims == ("channel", "row", "column")
    along = qw.uncertainty(Loss(), qw.Box(np.zeros(4), 1), directions=np.eye(4)[:2])
    assert along.to_xarray().position_std.dims == ("direction",)
    assert "data:image" not in along._repr_html_()


def test_xarray_has_every_figure_with_error_and_unit(image):
    dataset = image.to_xarray()
    assert dict(dataset.sizes) == {"channel": 2, "row": 3, "column": 4}
    for name, error in image.standard_error.items():
        value = np.ravel(dataset[name])
        np.testing.assert_array_equal(value, np.ravel(getattr(image, name)))
        np.testing.assert_array_equal(np.ravel(dataset[f"{name}_standard_error"]), np.ravel(error))
        assert dataset[name].attrs["units"] in {"input unit", "1 / input unit", "1"}
        assert dataset[name].attrs["long_name"]
    assert dataset.attrs["evaluations"] == image.evaluations
    assert float(dataset.effective_sample_size) == image.effective_sample_size


def test_labels_are_an_axis():
    u = qw.uncertainty(
        lambda x: torch.stack([loss(x), loss(x) ** 2], 1),
        qw.Box([0, 0, 0, 0], 1),
        input_shape=(2, 2),
    )
    dataset = u.to_xarray()
    assert dataset.position_std.dims == ("label", "row", "column")
    assert dataset.total_position_std.dims == ("label",)
    *_, last, _ = repr(u).splitlines()
    shown = [
        with_error(getattr(u, f"total_{name}_std")[1], u.standard_error[f"total_{name}_std"][1])
        for name in ("position", "momentum")
    ]
    assert last.split()[0] == "1"
    assert all(value in last for value in shown)
    # Value and error may stand below each other in a page, but neither apart from its sign.
    page = u._repr_html_()
    assert all(value.replace("± ", "±\N{NO-BREAK SPACE}") in page for value in shown)


def test_warnings_are_shown():
    with pytest.warns(UncertaintyWarning, match="effective sample size"):
        u = qw.uncertainty(lambda x: (60 * x[:, 0]).exp(), qw.Box(np.zeros(2), 1), samples=256)
    assert "Warning: the effective sample size is" in repr(u)
    assert '<div role="note"><b>Warning</b>: the effective' in u._repr_html_()
