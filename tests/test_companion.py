"""The companion page without a browser: what it holds, what is refused, what is left behind."""

from __future__ import annotations

import ast
import base64
import dataclasses
import hashlib
import json
import math
import os
import re
import threading
import zlib
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
from ipywidgets.widgets import widget as registry
from jupyter_core.paths import jupyter_path

import qwidgets as qw
from qwidgets import companion, provenance, views
from qwidgets.widgets import explorer as explorer_module
from qwidgets.widgets.explorer import Explorer

HOSTILE = "</script><script>alert(1)</script><!--<b>&amp;\"'"
STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"
# Front ends besides that of ipywidgets; bqplot 0.12 has its scales in its own.
NEEDED = metadata.requires("bqplot") or []
SCALES = ["bqscales"] if any(need.startswith("bqscales") for need in NEEDED) else []
MODULES = [*SCALES, "bqplot", "anywidget"]


class Page(HTMLParser):
    """Scripts, texts by element and attributes of a page, as a browser's parser sees them."""

    def __init__(self, path):
        super().__init__()
        self.scripts, self.texts, self.bodies, self.links = [], {}, [], []
        self._open, self.policy = None, None
        self.text = Path(path).read_text("utf-8")
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self._open = tag
        if tag == "script":
            self.scripts.append([attributes.get("type"), ""])
        if tag == "body":
            self.bodies.append(attributes.get("class"))
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]
        self.links += [value for name, value in attributes.items() if name in ("src", "href")]

    def handle_endtag(self, _tag):
        self._open = None

    def handle_data(self, data):
        if self._open == "script":
            self.scripts[-1][1] += data
        elif self._open is not None:
            self.texts.setdefault(self._open, []).append(data)

    def script(self, kind):
        (content,) = (content for type_, content in self.scripts if type_ == kind)
        return json.loads(content)

    @property
    def code(self):
        return [content for kind, content in self.scripts if kind is None]

    @property
    def states(self):
        return self.script(STATE)["state"]

    @property
    def explorer(self):
        return self.states[self.script(VIEW)["model_id"]]

    def arrays(self):
        """Numbers of the cube, unpacked as the page does it."""
        values, packed = self.explorer["state"]["cube"]["values"], self.explorer["packed"]
        data, arrays = zlib.decompress(base64.b64decode(packed["data"])), {}
        for path, size, length in zip(
            packed["paths"], packed["sizes"], packed["lengths"], strict=True
        ):
            part, data = np.frombuffer(data[:length], np.uint8), data[length:]
            wire = values[path[-2]]
            numbers = part.reshape(size, -1).T.copy().view(wire["dtype"])
            arrays[path[-2]] = numbers.reshape(wire["shape"])
        assert not data
        return arrays


@pytest.fixture(scope="session")
def sweep():
    return qw.sweep(
        epsilon=[0, 0.1],
        regularization=[0, 0.3],
        epochs=2,
        train_size=128,
        test_size=60,
        attack_steps=1,
        probe_images=1,
        progress=False,
    )


@pytest.fixture(scope="session")
def page(sweep, tmp_path_factory):
    return Page(qw.export_html(sweep, tmp_path_factory.mktemp("page") / "page.html"))


@pytest.fixture
def explorer(sweep):
    shown = Explorer(sweep)
    yield shown
    shown.close()


# What the page holds


def test_the_page_is_one_file_that_asks_for_nothing(page):
    assert page.links == []
    assert page.bodies == ["qw-standalone"]
    # The browser's tools would look for the maps beside the page.
    assert not re.search(r"^//[#@] sourceMappingURL", "".join(page.code), re.MULTILINE)
    assert '<html lang="en">' in page.text
    assert '<meta name="viewport"' in page.text


def test_the_default_grid_stays_below_six_megabytes(sweep, page):
    # All that grows with the grid are the arrays; they do not pack worse than not at all.
    def size(networks, epochs):
        one = views.plot_arrays(sweep.dataset.isel(epsilon=[0], regularization=[0], epoch=[0]))
        return 4 / 3 * networks * (epochs + 1) * sum(values.nbytes for values in one.values())

    packed = len(page.explorer["packed"]["data"])
    predicted = len(page.text.encode()) - packed + size(64, 20) * packed / size(4, 2)
    print(f"a page of the default grid takes {predicted / 1e6:.2f} MB")  # noqa: T201
    assert packed < 0.8 * size(4, 2)
    assert 2e6 < predicted < 5e6


def test_only_the_script_of_the_page_may_run(page):
    (code,) = page.code
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = dict(part.split(" ", 1) for part in page.policy.split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == f"'sha256-{digest}' blob:"
    assert not {"connect-src", "frame-src", "object-src", "worker-src"} & set(policy)


def test_the_modules_come_before_the_start(page):
    (code,) = page.code
    names = re.findall(r'qwidgetsPage\.load\("(\w+)"', code)
    assert names == MODULES
    assert code.index("qwidgetsPage.start(") > code.rindex("qwidgetsPage.load(")


def test_every_module_that_the_state_names_is_in_the_page(page):
    modules = {state["model_module"] for state in page.states.values()}
    assert modules == {"@jupyter-widgets/base", *MODULES}


def test_inlined_code_is_the_installed_code(page):
    # The code differs from the package's in the escaped places and the dropped map alone.
    (code,) = page.code
    for name in MODULES:
        folders = [Path(folder) / name / "index.js" for folder in jupyter_path("nbextensions")]
        source = next(file for file in folders if file.is_file()).read_text("utf-8")
        kept = re.sub(r"^//# sourceMappingURL=.*$\n?", "", source, flags=re.MULTILINE)
        assert kept.strip() in code


def test_the_numbers_are_those_of_the_cube(page, sweep):
    cube = page.explorer["state"]["cube"]
    assert cube["finished"] == 3
    arrays = page.arrays()
    assert list(arrays) == list(views.plot_arrays(sweep.dataset))
    for name, values in views.plot_arrays(sweep.dataset).items():
        np.testing.assert_array_equal(arrays[name], values)


def test_no_number_is_off_by_half_of_its_last_printed_digit(page, sweep):
    # A number is printed to three significant digits: their last is worth a hundredth of the first.
    for name, values in page.arrays().items():
        exact = np.moveaxis(sweep.dataset[name].values, 2, 0)
        if name == "packet":
            exact = exact[..., np.isin(sweep.dataset.t.values, views.plot_axes(sweep.dataset)["t"])]
            exact = exact * math.sqrt(sweep.dataset.attrs["width"])
            # Drawn, not printed: in half precision, to a part in 2048, as the page says.
            np.testing.assert_allclose(values, exact, rtol=2.0**-11, atol=2.0**-25)
            continue
        np.testing.assert_array_equal(np.isnan(values), np.isnan(exact))
        kept = np.isfinite(exact) & (exact != 0)
        digit = 10.0 ** (np.floor(np.log10(np.abs(exact[kept]))) - 2)
        assert (np.abs(values[kept] - exact[kept]) <= 0.5 * digit).all()
        np.testing.assert_allclose(values[kept], exact[kept], rtol=2.0**-24)


@pytest.mark.parametrize("width", [1e-30, 1e30])
def test_a_window_of_any_size_is_drawn(tmp_path, width):
    asked = {"epsilon": [0], "regularization": [0], "epochs": 1, "detail": None, "width": width}
    sweep = qw.sweep(**asked, train_size=100, test_size=50, progress=False)
    page = Page(qw.export_html(sweep, tmp_path / "page.html"))
    arrays = page.arrays()
    for name in ("position_std", "momentum_std"):
        exact = sweep.dataset[name].values[0, 0]
        np.testing.assert_allclose(arrays[name][:, 0, 0], exact, rtol=2.0**-24)
    # All of a packet is there, not what half precision leaves of 1e15 or 1e-15.
    assert np.isfinite(arrays["packet"]).all()
    largest = np.abs(arrays["packet"]).max(-1)
    assert np.median(largest) > 0.5
    peaks = np.abs(sweep.dataset.packet.values).max(-1)[0, 0] * math.sqrt(width)
    np.testing.assert_allclose(largest[:, 0, 0], peaks, rtol=2e-3, atol=1e-7)


def test_every_widget_that_is_referred_to_is_in_the_page(page):
    referred = set(re.findall(r"IPY_MODEL_(\w+)", json.dumps(page.states)))
    assert referred <= set(page.states)
    assert referred | {page.script(VIEW)["model_id"]} == set(page.states)
    state = page.explorer["state"]
    assert len(state["marks"]) == 22
    assert set(state["figures"]) == {"plane", "neighborhood", "tradeoff", "curves", "robustness"}
    assert "initialize" in state["_esm"]
    assert ".qw-root" in state["_css"]


def test_other_widgets_of_the_session_stay_out(explorer, tmp_path):
    other = ipywidgets.IntSlider(description="private")
    page = Page(qw.export_html(explorer, tmp_path / "page.html"))
    assert other.model_id not in page.text
    assert "private" not in json.dumps([state["state"] for state in page.states.values()])
    assert len(page.states) < len(registry._instances)
    other.close()


def test_the_footer_says_where_the_numbers_come_from(page, sweep):
    said = " ".join(text for texts in page.texts.values() for text in texts)
    attributes = sweep.dataset.attrs
    for version in attributes["versions"].items():
        assert " ".join(version) in said
    assert f"seed {attributes['seed']}" in said
    assert attributes["data_checksum"] in said
    listed = dict(zip(page.texts["dt"], page.texts["dd"], strict=True))
    assert listed["learning rate"] == str(attributes["learning_rate"])
    assert listed["training attack steps"] == "1"
    assert listed["train images"] == "128"


def test_the_title_is_the_explorers_or_ones_own(page, sweep, tmp_path):
    assert page.texts["title"][0].startswith("Uncertainty of a neural network: digits")
    assert "h1" not in page.texts
    own = Page(qw.export_html(sweep, tmp_path / "own.html", title="My networks"))
    assert own.texts["title"] == own.texts["h1"] == ["My networks"]
    assert own.explorer["state"]["heading"] == page.explorer["state"]["heading"]


def test_authors_and_text_stand_around_the_plots(sweep, tmp_path):
    page = Page(
        qw.export_html(
            sweep,
            tmp_path / "page.html",
            authors=["Ada Lovelace", "Alan Turing"],
            text="## Reading\n\nA *packet* obeys $\\sigma_x \\sigma_p \\ge \\tfrac12$.",
        )
    )
    assert page.texts["h1"] == ["Uncertainty of a neural network"]
    assert page.texts["bdi"][:2] == ["Ada Lovelace", "Alan Turing"]
    assert page.texts["h2"] == ["Reading"]
    assert page.texts["em"] == ["packet"]
    assert "".join(page.texts["mi"]) == "σxσp"
    assert "≥" in page.texts["mo"]
    order = [page.text.index(f"<{tag}") for tag in ("header", "main", "section", "footer")]
    assert order == sorted(order)


def test_what_a_file_cannot_hold_is_replaced(sweep, tmp_path):
    broken = "half \ud800, null \0, whole \U0001f600"
    words = {"title": broken, "authors": broken, "text": f"{broken} $\\alpha \ud800$"}
    page = Page(qw.export_html(sweep, tmp_path / "page.html", **words))
    whole = "half \ufffd, null \ufffd, whole \U0001f600"
    assert page.texts["h1"] == page.texts["title"] == [whole]
    assert page.texts["bdi"] == [whole]
    assert whole in page.text


def test_the_command_makes_the_same_numbers_again(page, sweep):
    (pre,) = page.texts["pre"]
    namespace = {}
    exec(pre.replace("qw.sweep(", "qw.sweep(progress=False, "), namespace)  # noqa: S102
    again = namespace["sweep"]
    assert again.settings == sweep.settings
    assert again.dataset.drop_attrs().identical(sweep.dataset.drop_attrs())
    assert again.dataset.attrs == sweep.dataset.attrs


def test_the_command_says_where_ones_own_parts_go(sweep):
    hostile = "x\nimport os"
    settings = dataclasses.replace(sweep.settings, data=hostile, model="custom")
    said = provenance.command(settings)
    assert "data=data,  # your own, named 'x\\nimport os'" in said
    assert "model=model,  # your own" in said
    assert len(said.splitlines()) == len(provenance.command(sweep.settings).splitlines())
    ast.parse(said)


@pytest.mark.parametrize("name", ["digits", "moons", "mnist", "cifar10", "temperature", "friedman"])
def test_the_command_names_the_data_that_have_a_name(sweep, name):
    settings = dataclasses.replace(sweep.settings, data=name)
    assert f"    data={name!r},\n" in provenance.command(settings)


def test_a_page_of_an_interrupted_sweep_says_so(sweep, tmp_path):
    dataset = sweep.dataset.isel(epoch=[0, 1]).assign_attrs(complete=False)
    part = qw.Sweep(dataset, sweep.settings, {}, None)
    page = Page(qw.export_html(part, tmp_path / "page.html"))
    assert "Stopped after 1 of 2 epochs." in " ".join(page.texts["p"])
    assert page.explorer["state"]["cube"]["finished"] == 2


# Large grids


@pytest.fixture(scope="module")
def large(sweep):
    """Many epochs: the last is the sweep's own, so that all numbers are known."""
    epochs = [0, *[1] * 399, 2]
    dataset = sweep.dataset.isel(epoch=epochs).assign_coords(epoch=np.arange(401))
    return qw.Sweep(dataset, dataclasses.replace(sweep.settings, epochs=400), {}, None)


def test_a_large_grid_is_thinned_and_says_so(large, sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(companion, "_MOST", 1_000_000)
    with pytest.warns(UserWarning, match="of 400 epochs, evenly spaced") as caught:
        page = Page(qw.export_html(large, tmp_path / "page.html"))
    assert caught[0].filename == __file__
    arrays, cube = page.arrays(), page.explorer["state"]["cube"]
    assert 0.9e6 < sum(values.nbytes for values in arrays.values()) <= 1e6
    kept = cube["axes"]["epoch"]
    assert kept == sorted(set(kept))
    assert (kept[0], kept[-1]) == (0, 400)
    assert max(np.diff(kept)) - min(np.diff(kept)) <= 1
    assert (cube["finished"], cube["epochs"]) == (len(kept), len(kept) - 1)
    assert page.explorer["state"]["epoch"] == len(kept) - 1
    np.testing.assert_array_equal(
        arrays["clean_accuracy"][-1], sweep.dataset.clean_accuracy[..., -1].astype(np.float32)
    )
    assert f"{len(kept) - 1} of 400 epochs" in " ".join(page.texts["p"])


def test_a_large_grid_of_few_epochs_loses_networks(sweep, tmp_path, monkeypatch):
    wide = sweep.dataset.isel(epsilon=[0] * 9 + [1], regularization=[0] * 6 + [1])
    wide = wide.assign_coords(epsilon=np.arange(10.0), regularization=np.arange(7.0))
    monkeypatch.setattr(companion, "_MOST", 100_000)
    with pytest.warns(UserWarning, match="page holds 4 × 3 of 10 × 7 networks, evenly spaced"):
        page = Page(
            qw.export_html(qw.Sweep(wide, sweep.settings, {}, None), tmp_path / "page.html")
        )
    axes = page.explorer["state"]["cube"]["axes"]
    assert "epoch" not in axes
    assert (axes["epsilon"][0], axes["epsilon"][-1]) == (0, 9)
    assert (axes["regularization"][0], axes["regularization"][-1]) == (0, 6)


def test_a_grid_that_fits_is_not_touched(large):
    most = sum(values.nbytes for values in views.plot_arrays(large.dataset).values())
    assert views.thinned(large.dataset, most).identical(large.dataset)
    assert views.thinned(large.dataset, most - 1).sizes["epoch"] == 400


@pytest.mark.parametrize("most", [10**5, 10**4, 1])
def test_thinning_keeps_the_corners(large, most):
    wide = large.dataset.isel(epsilon=[0] * 9 + [1], regularization=[0] * 6 + [1])
    wide = wide.assign_coords(epsilon=np.arange(10.0), regularization=np.arange(7.0))
    thin = views.thinned(wide, most)
    for name in ("epsilon", "regularization", "epoch"):
        assert thin[name].values[0] == wide[name].values[0]
        assert thin[name].values[-1] == wide[name].values[-1]
    assert thin.sizes["epoch"] <= 11
    size = sum(values.nbytes for values in views.plot_arrays(thin).values())
    least = thin.sizes["epsilon"] == thin.sizes["regularization"] == thin.sizes["epoch"] == 2
    assert size <= most or least


# A block for another page


def test_a_block_carries_the_page(sweep, tmp_path):
    block = qw.export_html(sweep, embed=True, title='"Quotes" & <more>')
    assert block._repr_html_() == str(block) == block.html
    frame = Frame(block.html)
    assert frame.tags == ["iframe"]
    (attributes,) = frame.attributes
    assert set(attributes["sandbox"].split()) == {
        *("allow-scripts", "allow-downloads", "allow-popups", "allow-popups-to-escape-sandbox")
    }
    assert attributes["title"] == '"Quotes" & <more>'
    whole = qw.export_html(sweep, tmp_path / "page.html", title='"Quotes" & <more>')
    ours, theirs = (
        re.sub(r"[0-9a-f]{32}", "id", text)
        for text in (attributes["srcdoc"], whole.read_text("utf-8"))
    )
    assert ours == theirs
    written = qw.export_html(sweep, tmp_path / "block.html", embed=True)
    assert Frame(written.read_text("utf-8")).tags == ["iframe"]


class Frame(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))


def test_hostile_words_stay_words(tmp_path):
    rng = np.random.default_rng(0)
    inputs = rng.uniform(size=(90, 2))
    data = qw.Dataset.from_arrays(
        inputs,
        (inputs[:, 0] > inputs[:, 1]).astype(int),
        name=HOSTILE,
        class_names=[HOSTILE, "other"],
    )
    sweep = qw.sweep(
        data=data,
        model="mlp",
        epsilon=[0, 0.1],
        regularization=[0, 0.3],
        attack_epsilon=[0, 0.1],
        epochs=1,
        attack_steps=1,
        probe_images=1,
        width=0.2,
        progress=False,
    )
    page = Page(qw.export_html(sweep, tmp_path / "page.html", title=HOSTILE))
    assert len(page.scripts) == 3
    assert page.texts["title"] == [HOSTILE]
    assert page.explorer["state"]["cube"]["axes"]["label"] == [HOSTILE, "other"]
    assert HOSTILE in page.explorer["state"]["heading"]["subtitle"]
    for kind, content in page.scripts:
        assert "alert(1)" not in content or kind in (STATE, VIEW)
    assert "b" not in page.texts


def test_code_that_would_end_its_element_is_escaped():
    code = 'a = "</script>"; b = "</SCRIPT >"; c = `<!--<script`; d = x < y'
    escaped = companion._escape_code(code)
    assert not re.search(r"</script|<!--", escaped, re.IGNORECASE)
    # An escape that means the same character in strings, templates and patterns.
    assert escaped.count(r"\x3c") == 3
    assert escaped.replace(r"\x3c", "<") == code


# An Explorer


def test_the_choices_of_an_explorer_are_kept(explorer, tmp_path):
    explorer.epsilon, explorer.label, explorer.epoch = 0.1, 7, 1
    before = explorer.run, explorer.heading
    state = Page(qw.export_html(explorer, tmp_path / "page.html", title="Other")).explorer["state"]
    assert (state["epsilon"], state["label"], state["epoch"]) == (0.1, 7, 1)
    assert state["run"]["message"] == "4 trained networks"
    # The Explorer itself goes on as it was.
    assert (explorer.run, explorer.heading) == before
    assert explorer.comm is not None


def test_an_explorer_that_trains_is_written_as_far_as_it_is(tmp_path):
    training = Explorer(
        epsilon=[0],
        regularization=[0],
        epochs=100_000,
        train_size=64,
        test_size=60,
        attack_steps=1,
        probe_images=1,
    )
    seen = threading.Event()
    training.observe(
        lambda _: training.cube and training.cube["finished"] > 1 and seen.set(), "run"
    )
    try:
        with pytest.raises(ValueError, match="none yet; wait for the first"):
            qw.export_html(training, tmp_path / "page.html")
        assert list(tmp_path.iterdir()) == []
        assert seen.wait(60)
        state = Page(qw.export_html(training, tmp_path / "page.html")).explorer["state"]
        assert training.run["phase"] == "training"
    finally:
        training.cancel()
        training.wait(60)
        training.close()
    last = state["cube"]["finished"] - 1
    assert last >= 1
    assert state["epoch"] <= last
    assert state["run"]["phase"] == "done"
    assert re.fullmatch(rf"{last} trained epochs?", state["run"]["message"])


def test_no_widget_is_left_behind(sweep, tmp_path):
    before = set(registry._instances)
    qw.export_html(sweep, tmp_path / "page.html")
    assert set(registry._instances) == before
    with pytest.raises(OSError, match="cannot be written"):
        qw.export_html(sweep, "/proc/page.html")
    assert set(registry._instances) == before


# The file


def test_the_path_comes_back_and_an_older_page_is_replaced(sweep, tmp_path):
    place = tmp_path / "page.html"
    place.write_text("before")
    assert qw.export_html(sweep, str(place)) == place
    assert place.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert os.listdir(tmp_path) == ["page.html"]  # noqa: PTH208
    plain = tmp_path / "plain"
    plain.touch()
    assert place.stat().st_mode == plain.stat().st_mode


def test_a_link_stays_a_link(sweep, tmp_path):
    (tmp_path / "to").mkdir()
    link = tmp_path / "link.html"
    link.symlink_to(tmp_path / "to" / "page.html")
    assert qw.export_html(sweep, link) == link
    assert link.is_symlink()
    assert (tmp_path / "to" / "page.html").stat().st_size > 1e6


def test_a_name_as_long_as_names_can_be(sweep, tmp_path):
    place = tmp_path / ("n" * 250 + ".html")
    assert qw.export_html(sweep, place).is_file()


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_is_cut_short_leaves_the_older_page(sweep, tmp_path, monkeypatch, fault):
    place = tmp_path / "page.html"
    place.write_text("before")
    write = Path.write_text

    def half(path, text, *arguments):
        write(path, text[: len(text) // 2], *arguments)
        raise fault

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(type(fault)) as raised:
        qw.export_html(sweep, place)
    monkeypatch.undo()
    if isinstance(fault, OSError):
        assert str(place) in str(raised.value)
        assert "No space left on device" in str(raised.value)
    assert place.read_text() == "before"
    assert os.listdir(tmp_path) == ["page.html"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("folder", IsADirectoryError, "is a folder; give a file's name such as"),
        ("", IsADirectoryError, "is a folder"),
        ("missing/page.html", FileNotFoundError, "must be in a folder that exists"),
        ("file/page.html", FileNotFoundError, "must be in a folder that exists"),
        ("pipe", OSError, "no ordinary file"),
        ("/proc/page.html", OSError, "choose a folder that you may write to"),
    ],
)
def test_a_place_that_cannot_hold_the_page_is_refused(
    sweep, tmp_path, monkeypatch, path, error, words
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=words) as raised:
        qw.export_html(sweep, path)
    assert path in str(raised.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("a string", "page.html"), {}, "sweep_or_explorer must be a Sweep.*got str"),
        ((None, "page.html"), {}, "sweep_or_explorer must be a Sweep.*got NoneType"),
        (("sweep", 3), {}, "path must be the name of a file.*got 3"),
        (("sweep", "page.html"), {"title": 3}, "title must be a str.*got 3"),
        (("sweep", "page.html"), {"authors": ["A", 3]}, "authors must be a str or a list of str"),
        (("sweep", "page.html"), {"text": b"x"}, "text must be a str of Markdown.*got b'x'"),
        (("sweep",), {}, "path must be the name of a file.*only embed=True"),
    ],
)
def test_the_wrong_kind_is_refused(sweep, tmp_path, monkeypatch, arguments, options, words):
    monkeypatch.chdir(tmp_path)
    arguments = [sweep if value == "sweep" else value for value in arguments]
    with pytest.raises(TypeError, match=words):
        qw.export_html(*arguments, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", MODULES)
def test_a_missing_part_of_the_front_end_is_named(sweep, tmp_path, monkeypatch, name):
    for other in {*MODULES} - {name}:
        place = tmp_path / "share" / other
        place.mkdir(parents=True)
        (place / "index.js").touch()
    monkeypatch.setattr(companion, "jupyter_path", lambda _: [str(tmp_path / "share")])
    before = set(registry._instances)
    version = metadata.version(name)
    with pytest.raises(FileNotFoundError, match=rf"{name} {version} is missing") as raised:
        qw.export_html(sweep, tmp_path / "page.html")
    assert f"pip install --force-reinstall {name}=={version}" in str(raised.value)
    assert not (tmp_path / "page.html").exists()
    assert set(registry._instances) == before


@pytest.mark.parametrize("name", ["page.js", "index.js"])
def test_a_missing_part_of_our_own_is_named(sweep, tmp_path, monkeypatch, name):
    version = qw.__version__
    for module, read in (
        (companion, lambda: qw.export_html(sweep, tmp_path / "page.html")),
        (explorer_module, lambda: explorer_module._static(name)),
    ):
        monkeypatch.setattr(module, "files", lambda _: tmp_path)
        with pytest.raises(FileNotFoundError, match=f"of qwidgets {version} is missing") as raised:
            read()
        assert "make install" in str(raised.value)
    assert os.listdir(tmp_path) == []  # noqa: PTH208
