"""The house rules that no other tool checks: what an import costs, and which names are public."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import qwidgets as qw

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def modules_after(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*sys.modules, sep='\\n')"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(run.stdout.split())


@pytest.mark.parametrize("module", ["qwidgets", "qwidgets.cli"])
def test_import_is_light(module):
    loaded = modules_after(f"import {module}")
    assert module in loaded
    assert not loaded & {"torch", "ipywidgets", "anywidget", "bqplot", "IPython", "xarray"}


def test_learning_loads_no_jupyter():
    loaded = modules_after("import qwidgets; qwidgets.sweep; qwidgets.uncertainty; qwidgets.pgd")
    assert "torch" in loaded
    assert not loaded & {"ipywidgets", "anywidget", "bqplot", "IPython"}


def test_public_names_are_sorted_and_resolve():
    assert list(qw.__all__) == sorted(set(qw.__all__))
    for name in qw.__all__:
        assert getattr(qw, name).__name__ == name
    assert set(qw.__all__) <= set(dir(qw))


def test_names_survive_their_modules():
    # `qwidgets.section` and others are functions, though modules of these names exist.
    names = {"figure", "section", "sweep"}
    imports = ", ".join(f"qwidgets.{name}" for name in sorted(names))
    run = modules_after(
        f"import qwidgets as qw, {imports}\n"
        f"assert all(callable(getattr(qw, name)) for name in {names})"
    )
    assert {f"qwidgets.{name}" for name in names} <= run


def test_unknown_name_lists_the_public_ones():
    with pytest.raises(AttributeError, match="Explorer"):
        qw.Explorers  # noqa: B018


def test_installed_version_is_the_package_version():
    assert metadata.version("qwidgets") == qw.__version__


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins.items()}


def test_constraints_fit_every_declared_dependency():
    pins = pinned()
    extras = PROJECT["optional-dependencies"].values()
    for text in [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text


def test_constraints_fit_the_oldest_python():
    oldest = Version(PROJECT["requires-python"].removeprefix(">=") + ".0")
    pins = pinned()
    needs = {
        name: found.metadata.get("Requires-Python")
        for found in metadata.distributions()
        if (name := canonicalize_name(found.name)) in pins
    }
    assert {"torch", "soupsieve"} <= needs.keys()
    assert [name for name, need in needs.items() if need and oldest not in SpecifierSet(need)] == []
