from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
import xarray as xr

import qwidgets as qw
from qwidgets import store

FACTS = {
    "settings": {"epochs": 4},
    "data_checksum": "0123",
    "untrained_loss": 2.3,
    "versions": {"torch": "2"},
}


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
    return store.Content(cube=cube, weights=weights, manifest=FACTS)


def save(path, content):
    with store.locked(path) as folder:
        store.publish(folder, content.manifest, content)


def visible(folder):
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


@pytest.fixture
def other(content):
    weights = {name: value + 1 for name, value in content.weights.items()}
    return store.Content(
        cube=content.cube * 2, weights=weights, manifest=FACTS | {"untrained_loss": 2.4}
    )


@pytest.fixture
def saved(content, tmp_path):
    path = tmp_path / "saved"
    save(path, content)
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
        parts = {"cube": content.cube, "weights": content.weights, "manifest": FACTS} | changes
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
    save(saved, store.Content(cube=cube, weights=content.weights, manifest=FACTS))
    assert store.load(saved).cube.sizes["epoch"] == 2
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]
    assert visible(saved) == ["content-1", "manifest.json"]


def test_an_empty_folder_can_be_saved_to(content, tmp_path):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):  # of those who looked into it
        (tmp_path / name).write_text("")
    save(tmp_path, content)
    assert store.load(tmp_path).checksum == content.checksum


@pytest.mark.parametrize("kind", ["file", "folder", "someone else's manifest"])
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
        save(path, content)
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_a_place_that_cannot_be_written_is_explained(content, tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot be written .No such file.*has room.$"):
        save(tmp_path / "absent" / "sweep", content)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file.sweep cannot be written .*choose one"):
        save(tmp_path / "file" / "sweep", content)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_of_a_folder_that_somebody_removed_nothing_is_said_to_be_intact(content, saved):
    with store.locked(saved) as folder:
        shutil.rmtree(folder)
        for write in (
            lambda: store.publish(folder, content.manifest, content),
            lambda: store.write_part(folder, 0, 1, part(1.0)),
        ):
            with pytest.raises(FileNotFoundError, match="cannot be written .* has room.$"):
                write()


def test_a_failure_halfway_leaves_the_old_sweep_and_nothing_else(content, saved):
    broken = store.Content(
        cube=content.cube, weights=content.weights, manifest={"no JSON": object()}
    )
    with pytest.raises(TypeError, match="JSON"):
        save(saved, broken)
    assert store.load(saved).checksum == content.checksum
    assert visible(saved) == ["content-0", "manifest.json"]


def test_a_failure_on_new_ground_leaves_nothing(content, tmp_path):
    broken = store.Content(
        cube=content.cube, weights=content.weights, manifest={"no JSON": object()}
    )
    with pytest.raises(TypeError, match="JSON"):
        save(tmp_path / "new", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_sweep_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; check its name"):
        store.load(tmp_path / "nowhere")


@pytest.mark.parametrize("part", ["content-0/cube.zarr", "content-0/weights.safetensors"])
def test_a_missing_part_is_named(saved, part):
    target = saved / part
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{part}.* save the sweep again"):
        store.load(saved)


def test_every_kind_of_damage_is_noticed(content, saved, tmp_path):
    files = [path.relative_to(saved) for path in saved.rglob("*") if path.is_file()]
    parts = [file for file in files if file.name not in {"manifest.json", ".lock"}]
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
def test_a_manifest_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match="manifest.json is none"):
        store.load(tmp_path)


@pytest.mark.parametrize("held", ["content-0", "parts"])
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (b"", "is damaged"),
        (b'{"format": "qwidg', "is damaged"),
        (b"\xff\xfe\x00", "is damaged"),
        (b"[]", "is damaged"),
        (None, "is missing"),
    ],
)
def test_a_lost_manifest_is_named_and_what_it_was_of_stays(content, saved, held, damage, told):
    with store.locked(saved) as folder:
        store.write_part(folder, 0, 1, part(1.0))
    shutil.rmtree(saved / ({"content-0", "parts"} - {held}).pop())
    manifest = saved / "manifest.json"
    manifest.unlink() if damage is None else manifest.write_bytes(damage)
    before = {file: file.stat().st_size for file in saved.rglob("*")}
    kind = FileNotFoundError if damage is None else ValueError
    for act in (lambda: save(saved, content), lambda: store.load(saved)):
        with pytest.raises(kind, match=rf"manifest.json {told}; restore it .*stays untouched"):
            act()
    assert {file: file.stat().st_size for file in saved.rglob("*")} == before


def test_a_manifest_that_is_lost_in_a_first_sweep_takes_nothing_with_it(content, tmp_path):
    with store.locked(tmp_path / "store") as folder:
        store.publish(folder, content.manifest, content)
        (folder / "manifest.json").unlink()
    assert visible(folder) == ["content-0"]


@pytest.mark.parametrize(
    "name",
    ["checksum", "content", "data_checksum", "settings", "untrained_loss", "version", "versions"],
)
@pytest.mark.parametrize("wrong", ["no such key", [], True])
def test_a_manifest_that_was_edited_is_refused_by_what_is_wrong(content, saved, name, wrong):
    path = saved / "manifest.json"
    manifest = json.loads(path.read_text()) | {name: wrong}
    if wrong == "no such key":
        del manifest[name]
    path.write_text(json.dumps(manifest))
    first = (name, wrong) == ("version", True)  # format 1, which no release wrote
    told = "is damaged" if first else f"has no valid {name}"
    for act in (lambda: save(saved, content), lambda: store.load(saved)):
        with pytest.raises(ValueError, match=rf"manifest.json {told}; restore it"):
            act()
    assert visible(saved) == ["content-0", "manifest.json"]


def test_a_newer_format_is_refused_with_the_remedy(saved):
    path = saved / "manifest.json"
    manifest = json.loads(path.read_text()) | {"version": 99}
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="format 2 or older, got format 99 .*update qwidgets"):
        store.load(saved)


# Checkpoints of batches


def part(value, **facts):
    tensors = {
        "weight": torch.full((3, 2), value),
        "step": torch.tensor(value),
        "stream": torch.arange(9, dtype=torch.uint8),
    }
    return store.Part(tensors=tensors, facts=facts)


def test_checkpoints_are_read_back(tmp_path):
    with store.locked(tmp_path / "store") as folder:
        store.publish(folder, FACTS)
        assert store.read_parts(folder) == {}
        store.write_part(folder, 12, 3, part(1.5, strategy="loop"))
        store.write_part(folder, 0, 10, part(2.5))
        read = store.read_parts(folder)
    assert sorted(read) == [(0, 10), (12, 3)]
    assert read[12, 3].facts == {"strategy": "loop"}
    for name, value in part(1.5).tensors.items():
        assert torch.equal(read[12, 3].tensors[name], value)
        assert read[12, 3].tensors[name].dtype == value.dtype


def test_checkpoints_go_when_they_are_superseded_and_published(content, tmp_path):
    with store.locked(tmp_path / "store") as folder:
        for batch, epoch in ((0, 4), (0, 5), (0, 6), (1, 4), (1, 5), (2, 5), (2, 12)):
            store.write_part(folder, batch, epoch, part(0.0))
        store.publish(folder, FACTS, content)
        assert len(store.read_parts(folder)) == 7
        store.remove_parts(folder, 5)
        assert sorted(store.read_parts(folder)) == [(0, 6), (1, 5), (2, 12)]
        store.remove_parts(folder, None)
        assert store.read_parts(folder) == {}
    assert visible(folder) == ["content-0", "manifest.json"]


@pytest.mark.parametrize("kind", ["truncated", "altered", "empty"])
def test_a_damaged_checkpoint_is_named(tmp_path, kind):
    with store.locked(tmp_path / "store") as folder:
        store.publish(folder, FACTS)
        store.write_part(folder, 1, 2, part(3.0))
        file = folder / "parts" / "1-2.safetensors"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes({"truncated": data[:-4], "altered": data, "empty": b""}[kind])
        with pytest.raises(ValueError, match=r"1-2.safetensors is damaged .*remove that file"):
            store.read_parts(folder)


def test_a_folder_without_a_finished_epoch_says_so(tmp_path):
    with store.locked(tmp_path / "store") as folder:
        store.publish(folder, FACTS | {"settings": {}})
    with pytest.raises(ValueError, match=r"has none yet; call sweep with store=path"):
        store.load(folder)
    assert store.manifest(folder)["settings"] == {}


# One writer


def test_a_second_writer_is_refused(content, saved):
    refusal = rf"process {os.getpid()} on .* is writing to .*saved; wait until it has ended"
    with store.locked(saved):
        # In this process ...
        with pytest.raises(BlockingIOError, match=refusal):
            save(saved, content)
        # ... and in another one, which may read.
        program = f"""
from qwidgets import store
store.load({str(saved)!r})
try:
    with store.locked({str(saved)!r}): print("not refused")
except BlockingIOError as error:
    print(error)
"""
        told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        assert f"process {os.getpid()} on" in told.stdout.decode()
    with store.locked(saved):
        pass


def test_the_lock_goes_with_its_process_even_if_that_left_children(tmp_path):
    program = f"""
import os, signal, sys, time
from qwidgets import store
with store.locked({str(tmp_path / "store")!r}):
    if os.fork() == 0:
        time.sleep(60)
    print("ready", flush=True)
    time.sleep(60)
"""
    arguments = [sys.executable, "-c", program]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(BlockingIOError), store.locked(tmp_path / "store"):
            pass
        process.kill()
        process.wait()
        with store.locked(tmp_path / "store"):
            pass
        os.killpg(process.pid, signal.SIGKILL)


# Killed at every step


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def refused():
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def struck_at(step, action, blow=killed):
    """Run an action in a process of its own, with a blow in this file operation; if it hit."""

    def act():
        seen = 0

        def watch(event, _):
            nonlocal seen
            if event.startswith(("open", "os.", "shutil.")):
                seen += 1
                if seen == step:
                    blow()

        sys.addaudithook(watch)
        with suppress(OSError):
            action()
        os._exit(0 if seen < step else 1)

    process = multiprocessing.get_context("fork").Process(target=act)
    process.start()
    process.join()
    assert process.exitcode in {0, 1, -signal.SIGKILL}
    return process.exitcode != 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="strikes a forked process")
@pytest.mark.parametrize("blow", [killed, refused])
def test_a_blow_in_any_file_operation_leaves_the_old_or_the_new(content, other, saved, blow):
    def update():
        with store.locked(saved) as folder:
            store.write_part(folder, 0, 5, part(5.0))
            store.publish(folder, other.manifest, other)
            store.remove_parts(folder, 4)

    with store.locked(saved) as folder:
        store.write_part(folder, 0, 4, part(4.0))
    pristine = saved.with_name("pristine")
    shutil.copytree(saved, pristine)
    found = []
    step = 1
    while struck_at(step, update, blow):
        found.append((store.load(saved).checksum == other.checksum, len(store.read_parts(saved))))
        expected = other if found[-1][0] else content
        assert store.load(saved).checksum == expected.checksum
        # What was left behind is no obstacle, and is cleared away.
        update()
        assert store.load(saved).checksum == other.checksum
        assert visible(saved)[1:] == ["manifest.json", "parts"]
        assert sorted(file.name for file in (saved / "parts").iterdir()) == ["0-5.safetensors"]
        shutil.rmtree(saved)
        shutil.copytree(pristine, saved)
        step += 7
    assert len(found) > 10
    assert {state for state, _ in found} == {False, True}
    assert {count for _, count in found} == {1, 2}
    if blow is killed:
        assert found == sorted(found, key=lambda state: state[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="strikes a forked process")
def test_a_kill_on_new_ground_leaves_a_sweep_or_room_for_one(content, tmp_path):
    path = tmp_path / "new"
    step, outcomes = 1, set()
    while struck_at(step, lambda: save(path, content)):
        try:
            outcomes.add(store.load(path).checksum)
        except FileNotFoundError:
            outcomes.add(None)
        save(path, content)
        assert store.load(path).checksum == content.checksum
        shutil.rmtree(path)
        step += 7
    assert outcomes == {None, content.checksum}


def test_a_reader_beside_a_writer_always_finds_a_whole_sweep(content, other, saved):
    known = {content.checksum, other.checksum}
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for each in (other, content):
                save(saved, each)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        end = time.monotonic() + 3
        seen = []
        while time.monotonic() < end:
            seen.append(store.load(saved).checksum)
    finally:
        stop.set()
        writer.join()
    assert set(seen) == known


# No room


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs"]
    if mount is None or subprocess.run([mount, *options, place], check=False).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run([umount, place], check=True)


def grown(content, factor):
    weights = {name: value.repeat(factor, 1, 1) for name, value in content.weights.items()}
    return store.Content(cube=content.cube, weights=weights, manifest=content.manifest)


def assert_refused_for_want_of_room(folder, content, reason):
    """Whatever does not fit is refused, and what was there before stays."""
    save(folder, content)
    with store.locked(folder) as path:
        store.write_part(path, 0, 1, part(1.0))
        before = sorted(map(str, folder.rglob("*")))
        big = store.Part(tensors={"weight": torch.rand(1 << 20)}, facts={})
        for write in (
            lambda: store.publish(path, FACTS, grown(content, 1 << 16)),
            lambda: store.publish(path, FACTS | {"settings": {"x": "x" * (1 << 21)}}, content),
            lambda: store.write_part(path, 0, 2, big),
        ):
            with pytest.raises(OSError, match=rf"cannot be written \({reason}\).*has room.*intact"):
                write()
            assert store.load(path).checksum == content.checksum
            assert sorted(map(str, folder.rglob("*"))) == before
        assert sorted(store.read_parts(path)) == [(0, 1)]
        # With room again, it goes on.
        store.publish(path, content.manifest, content)


def test_a_full_disk_is_told_and_harms_nothing(content, small_disk):
    assert_refused_for_want_of_room(small_disk / "store", content, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_while_the_cube_is_written(content, other, small_disk):
    folder = small_disk / "store"
    save(folder, content)
    ballast = small_disk / "ballast"
    refused = 0
    for room in range(4 << 10, 140 << 10, 16 << 10):
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        ballast.write_bytes(bytes(free - room))
        try:
            save(folder, other)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017
            refused += 1
            assert store.load(folder).checksum == content.checksum
        else:
            assert store.load(folder).checksum == other.checksum
            save(folder, content)
        ballast.unlink()
    assert 2 <= refused <= 7


def test_a_limit_on_files_is_told_and_harms_nothing(content, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        assert_refused_for_want_of_room(tmp_path / "store", content, os.strerror(errno.EFBIG))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Of a sweep


TINY = {
    "epsilon": [0],
    "regularization": [0],
    "epochs": 1,
    "train_size": 100,
    "test_size": 50,
    "probe_images": 1,
    "detail": None,
}


def test_a_store_from_before_a_setting_was_there_has_its_default(tmp_path):
    asked = TINY | {"store": tmp_path / "old.sweep", "progress": False}
    first = qw.sweep(**asked)
    manifest = tmp_path / "old.sweep" / "manifest.json"
    content = json.loads(manifest.read_text("utf-8"))
    for name in ("attack_step", "detail_samples"):
        content["settings"].pop(name)
    manifest.write_text(json.dumps(content), "utf-8")
    assert qw.open_sweep(tmp_path / "old.sweep").settings == first.settings
    assert qw.sweep(**asked).dataset.identical(first.dataset)
    with pytest.raises(ValueError, match=r"attack_step: 2\.5 -> 1\.0"):
        qw.sweep(**asked, attack_step=1)


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"momentum": 0.9, "nesterov": True}, "momentum, nesterov"), ({"epochs": None}, "epochs")],
)
def test_a_sweep_of_settings_that_are_not_known_is_refused_by_their_names(
    sweep, tmp_path, changes, told
):
    sweep.save(tmp_path / "other.sweep")
    path = tmp_path / "other.sweep" / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    settings = manifest["settings"] | changes
    manifest["settings"] = {name: value for name, value in settings.items() if value is not None}
    path.write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(ValueError, match=rf"other.sweep .*missing: {told}; open it with .* 0\."):
        qw.open_sweep(tmp_path / "other.sweep")


def test_what_a_killed_clean_up_has_left_goes_with_the_next_call(tmp_path):
    asked = TINY | {"store": tmp_path / "store", "progress": False}
    program = f"""
import os
import qwidgets as qw
from qwidgets import store
def killed(path, epoch):
    if epoch is None:
        os._exit(9)
store.remove_parts = killed
qw.sweep(**{asked | {"store": str(tmp_path / "store")}!r})
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    (tmp_path / "store" / "content-1").mkdir()
    assert visible(tmp_path / "store") == ["content-1", "content-2", "manifest.json", "parts"]
    assert qw.sweep(**asked).complete
    assert visible(tmp_path / "store") == ["content-2", "manifest.json"]


def test_a_relative_store_is_where_it_was_asked_for(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    states = qw.iterate_sweep(**TINY, store="store")
    monkeypatch.chdir("elsewhere")
    assert list(states)[-1].sweep.complete
    assert qw.open_sweep(tmp_path / "store").complete
    assert list((tmp_path / "elsewhere").iterdir()) == []
