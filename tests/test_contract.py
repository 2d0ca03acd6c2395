"""The two ends of the wire: traits and messages in Python, their types in js/src/contract.ts."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import get_args

import anywidget
import pytest

import qwidgets as qw
from qwidgets.widgets.choices import PANELS
from qwidgets.widgets.explorer import Explorer
from qwidgets.widgets.runner import Phase

CONTRACT = Path(__file__).parents[1] / "js" / "src" / "contract.ts"
TINY = {"epsilon": [0, 0.1], "regularization": [0], "train_size": 60, "test_size": 40}


@pytest.fixture(scope="module")
def source():
    text = CONTRACT.read_text(encoding="utf-8")
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def traits():
    explorer = Explorer(qw.sweep(**TINY, epochs=1, attack_steps=1, progress=False))
    yield explorer.get_state()
    explorer.close()


def block(source, opening):
    """Text between the braces, or brackets, that follow `opening`."""
    start = source.index(opening) + len(opening)
    depth = 1
    for end, character in enumerate(source[start:], start):
        depth += (character in "{[(") - (character in "}])")
        if depth == 0:
            return source[start:end]
    message = f"{opening!r} is never closed"
    raise AssertionError(message)


def keys(source, opening):
    """Names of the fields of an interface, those of nested ones left out."""
    outer = re.sub(r"\{[^{}]*\}", "{}", block(source, opening))
    return set(re.findall(r"^\s*(\w+)\??:", re.sub(r"(?<=[;{])\s*", "\n", outer), re.MULTILINE))


def strings(text):
    return re.findall(r'"([^"]*)"', text)


def own_traits():
    inherited = anywidget.AnyWidget.class_trait_names(sync=True)
    return set(Explorer.class_trait_names(sync=True)) - set(inherited)


def test_traits_are_those_of_the_contract(source):
    assert own_traits() == keys(source, "interface Traits {")


def test_panels_and_marks_have_the_same_names(source, traits):
    assert set(traits["figures"]) == set(strings(block(source, "PANELS = [")))
    assert set(traits["marks"]) == set(strings(block(source, "MARKS = [")))


def test_the_page_knows_the_same_panels(source, traits):
    union = re.search(r"type PanelName =([^;]*);", source)[1]
    assert traits["panels"] == list(PANELS) == strings(union)


def test_cube_has_the_fields_of_the_contract(source, traits):
    cube = traits["cube"]
    assert set(cube) == keys(source, "interface WireCube {")
    # A page that has not all epochs names those that it has; see test_companion.py.
    assert {*cube["axes"], "epoch"} == keys(source, "axes: {")
    assert "epoch" not in cube["axes"]
    dtypes = strings(re.search(r"interface WireArray \{\s*dtype:([^;]*);", source)[1])
    for array in cube["values"].values():
        assert set(array) == keys(source, "interface WireArray {")
        assert array["dtype"] in dtypes


def test_heading_and_run_have_the_fields_of_the_contract(source, traits):
    assert set(traits["heading"]) == set(re.findall(r"(\w+):", block(source, "heading: {")))
    assert set(traits["run"]) == keys(source, "interface Run {")


def test_phases_are_those_of_the_contract(source):
    union = re.search(r"type Phase =([^;]*);", source)[1]
    assert sorted(get_args(Phase)) == sorted(strings(union))


def test_messages_have_the_fields_of_the_contract(source):
    sent = []

    class Recorder(Explorer):
        def send(self, content, buffers=None):
            sent.append((content, buffers))

    explorer = Recorder(**TINY, epochs=2, attack_steps=1)
    explorer.wait()
    explorer.close()
    epochs = [(content, buffers) for content, buffers in sent if content.get("type") == "epoch"]
    assert [content["epoch"] for content, _ in epochs] == [1, 2]
    for content, buffers in epochs:
        assert set(content) == keys(source, "interface EpochMessage {")
        assert len(buffers) == len(content["names"])
    assert "epoch" in strings(block(source, "interface EpochMessage {"))


def test_lens_has_the_fields_of_the_contract(source):
    explorer = Explorer(qw.sweep(**TINY, epochs=1, attack_steps=1, progress=False))
    empty = set(explorer.lens)
    explorer.look()
    fields = keys(source, "interface WireLens {")
    # A page adds that it is not live.
    assert set(explorer.lens) == fields - {"live"}
    assert empty == {"state", "message"}
    states = strings(re.search(r"interface WireLens \{\s*state:([^;]*);", source)[1])
    assert sorted(states) == ["empty", "missing", "ready"]
    explorer.close()


def test_regions_have_the_fields_of_the_contract(source):
    settings = TINY | {"data": "moons", "epsilon": [0], "epochs": 1, "detail": None}
    explorer = Explorer(qw.sweep(**settings, progress=False))
    explorer.look()
    assert set(explorer.regions) == keys(source, "interface WireRegions {")
    states = strings(re.search(r"interface WireRegions \{\s*state:([^;]*);", source)[1])
    assert explorer.regions["state"] in states
    explorer.close()


def test_refined_networks_have_the_fields_of_the_contract(source):
    sent = []

    class Recorder(Explorer):
        def send(self, content, buffers=None):
            sent.append((content, buffers))

    explorer = Recorder(qw.sweep(**TINY, epochs=1, attack_steps=1, progress=False))
    explorer.refine(2, epsilon=0.05)
    explorer.wait(60)
    [refined] = explorer.refined
    shared = keys(source, "interface WireRefined {")
    assert set(refined) == shared
    own = keys(source, 'interface RefinedMessage extends Omit<WireRefined, "values"> {')
    for content, buffers in sent:
        assert set(content) == (shared - {"values"}) | own
        assert len(buffers) == len(content["names"])
    assert [content["epoch"] for content, _ in sent] == [0, 1, 2]
    assert set(explorer.runs) == set(re.findall(r"(\w+):", block(source, "runs: {")))
    explorer.close()


def test_commands_of_the_browser_are_obeyed(source, monkeypatch):
    commands = strings(re.search(r"type Command = \{\s*type:([^}]*)\}", source)[1])
    browser = ["cancel", "dismiss", "look", "pause", "refine", "resume", "show", "train"]
    assert sorted(commands) == browser
    explorer, called = Explorer(qw.sweep(**TINY, epochs=1, progress=False)), []
    for command in commands:
        name = "_watch" if command == "look" else command
        monkeypatch.setattr(explorer, name, partial(called.append, command))
        explorer._handle_custom_msg({"type": command}, [])
    assert called == commands
    explorer.close()
