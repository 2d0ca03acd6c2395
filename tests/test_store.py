from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import xarray as xr

from qwidgets import store


@pytest.fixture
def content():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(4, 5))
    values[0, 0] = np.nan
    cube = xr.Dataset(
        {
            "spread": (("epsilon", "epoch"), values, {"units": "1"}),
            "diverged": ("epsilon", np.array([-1, 3, -1, -1])),
            "packet": ("epsilon", generator.normal(size=4).astype(np.float32)),
        },
        {"epsilon": [0.0, 0.1, 0.2, 0.3], "epoch": np.arange(5)},
        {"complete": False, "class_names": ["a", "b"], "versions": {"torch": "2"}},
    )
    weights = {"layer.weight": torch.from_numpy(generator.normal(size=(4, 2, 3)))}
    return store.Content(cube=cube, weights=weights, manifest={"settings": {"epochs": 4}})


@pytest.fixture
def saved(content, tmp_path):
    path = tmp_path / "saved"
    store.save(path, content)
    return path


def test_what_is_saved_is_read_back_bit_for_bit(content, saved):
    read = store.load(saved)
    xr.testing.assert_identical(read.cube, content.cube)
    for name in content.cube.variables:
        assert read.cube[name].dtype == content.cube[name].dtype
        assert read.cube[name].values.tobytes() == content.cube[name].values.tobytes()
    assert torch.equal(read.weights["layer.weight"], content.weights["layer.weight"])
    assert read.manifest["settings"] == {"epochs": 4}
    assert read.checksum == content.checksum


def test_a_copy_elsewhere_reads_the_same(content, saved, tmp_path):
    shutil.move(saved, tmp_path / "moved")
    assert store.load(tmp_path / "moved").checksum == content.checksum


def test_the_checksum_sees_every_part(content):
    def altered(**changes):
        parts = {"cube": content.cube, "weights": content.weights, "manifest": {}} | changes
        return store.Content(**parts).checksum

    other = content.cube.copy(deep=True)
    other["spread"][1, 1] += 1e-12
    weights = {name: value + 1 for name, value in content.weights.items()}
    sums = {
        altered(),
        altered(cube=other),
        altered(weights=weights),
        altered(cube=content.cube.rename(spread="s")),
        altered(cube=content.cube.assign_attrs(complete=True)),
    }
    assert len(sums) == 5


def test_a_saved_sweep_is_replaced_and_nothing_is_left_beside_it(content, saved):
    cube = content.cube.isel(epoch=slice(0, 2))
    store.save(saved, store.Content(cube=cube, weights=content.weights, manifest={}))
    assert store.load(saved).cube.sizes["epoch"] == 2
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder", "someone else's manifest"])
def test_what_is_not_a_saved_sweep_is_not_overwritten(content, tmp_path, kind):
    path = tmp_path / "precious"
    if kind == "file":
        path.write_text("precious")
    else:
        path.mkdir()
    if kind == "folder":
        (path / "thesis.tex").write_text("precious")
    if kind == "someone else's manifest":
        (path / "manifest.json").write_text('{"format": "web app"}')
    before = sorted(map(str, tmp_path.rglob("*")))
    with pytest.raises(FileExistsError, match="precious is something else; choose another name"):
        store.save(path, content)
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_a_place_that_cannot_be_written_is_explained(content, tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot be written .No such file.*choose a folder"):
        store.save(tmp_path / "absent" / "sweep", content)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file.sweep cannot be written .*choose a folder"):
        store.save(tmp_path / "file" / "sweep", content)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failure_halfway_leaves_the_old_sweep_and_nothing_else(content, saved):
    broken = store.Content(
        cube=content.cube, weights=content.weights, manifest={"no JSON": object()}
    )
    with pytest.raises(TypeError, match="JSON"):
        store.save(saved, broken)
    assert store.load(saved).checksum == content.checksum
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_a_missing_sweep_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; check its name"):
        store.load(tmp_path / "nowhere")


@pytest.mark.parametrize("part", ["manifest.json", "cube.zarr", "weights.safetensors"])
def test_a_missing_part_is_named(saved, part):
    target = saved / part
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {part}"):
        store.load(saved)


def test_every_kind_of_damage_is_noticed(content, saved, tmp_path):
    files = [path.relative_to(saved) for path in saved.rglob("*") if path.is_file()]
    parts = [file for file in files if file.name != "manifest.json"]
    assert len(parts) >= 10
    for number, part in enumerate(parts):
        for kind in ("truncated", "altered", "removed"):
            copy = tmp_path / f"{number}{kind}"
            shutil.copytree(saved, copy)
            data = (copy / part).read_bytes()
            if kind == "truncated":
                (copy / part).write_bytes(data[: len(data) // 2])
            elif kind == "altered":
                middle = len(data) // 2
                changed = bytes([data[middle] ^ 0x55])
                (copy / part).write_bytes(data[:middle] + changed + data[middle + 1 :])
            else:
                (copy / part).unlink()
            try:
                read = store.load(copy)
            except (ValueError, FileNotFoundError) as error:
                assert str(copy) in str(error)  # noqa: PT017
                assert "save" in str(error)  # noqa: PT017
            else:
                # A byte of zarr's description that says nothing about the content.
                assert (part.name, kind) == ("zarr.json", "altered")
                xr.testing.assert_identical(read.cube, content.cube)


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"format": "other"}'])
def test_a_manifest_that_is_none_is_refused(saved, text):
    (saved / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match="manifest.json is none"):
        store.load(saved)


def test_a_newer_format_is_refused_with_the_remedy(saved):
    path = saved / "manifest.json"
    manifest = json.loads(path.read_text()) | {"version": 99}
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="format 1 or older, got format 99 .*update qwidgets"):
        store.load(saved)
