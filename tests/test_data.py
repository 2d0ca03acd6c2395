from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwidgets import data as data_module
from qwidgets.data import Dataset, load_data

if TYPE_CHECKING:
    from collections.abc import Iterator

MNIST_NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def shared(name: str) -> Path:
    root = Path(os.environ.get("QWIDGETS_DATA", Path(__file__).parents[2] / "shared/data"))
    if not (root / name).is_dir():
        pytest.skip(f"no folder {root / name}: set QWIDGETS_DATA to the folder that holds it")
    return root


# The named data sets


def test_digits_are_those_of_scikit_learn_split_by_class() -> None:
    from sklearn.datasets import load_digits

    digits = load_data("digits")
    assert digits.name == "digits"
    assert digits.input_shape == (1, 8, 8)
    assert digits.class_names == tuple("0123456789")
    assert digits.classes == 10
    assert digits.value_range == (0.0, 1.0)
    assert len(digits.train_labels) == 1437
    assert len(digits.test_labels) == 360
    assert digits.train_inputs.dtype == digits.test_inputs.dtype == torch.float32
    assert digits.train_labels.dtype == digits.test_labels.dtype == torch.int64
    bunch = load_digits()
    parts = ((digits.train_inputs, digits.train_labels), (digits.test_inputs, digits.test_labels))
    found = sorted(
        (tuple((16 * image).flatten().tolist()), int(label))
        for inputs, labels in parts
        for image, label in zip(inputs, labels, strict=True)
    )
    assert found == sorted(
        (tuple(image.tolist()), int(label))
        for image, label in zip(bunch.data, bunch.target, strict=True)
    )
    share = torch.bincount(digits.test_labels).numpy() / np.bincount(bunch.target)
    assert (np.abs(share - 360 / 1797) < 1 / 170).all()


def test_seed_decides_the_split() -> None:
    assert load_data("digits").checksum == load_data("digits", seed=0).checksum
    assert load_data("digits").checksum != load_data("digits", seed=1).checksum
    assert load_data("moons", seed=4).checksum == load_data("moons", seed=4).checksum
    assert load_data("moons", seed=4).checksum != load_data("moons", seed=5).checksum


def test_moons_are_two_balanced_classes_with_room_around() -> None:
    moons = load_data("moons")
    assert moons.input_shape == (2,)
    assert torch.bincount(moons.train_labels).tolist() == [1000, 1000]
    assert torch.bincount(moons.test_labels).tolist() == [500, 500]
    low, high = moons.value_range
    span = high - low
    assert moons.train_inputs.min() > low + 0.05 * span
    assert moons.train_inputs.max() < high - 0.05 * span


def test_mnist_from_files_is_the_published_one() -> None:
    mnist = load_data("mnist", root=shared("mnist"))
    assert mnist.train_inputs.shape == (60_000, 1, 28, 28)
    assert mnist.test_inputs.shape == (10_000, 1, 28, 28)
    assert mnist.value_range == (0.0, 1.0)
    # Published facts: the first labels, the sizes of the classes, mean and deviation of the pixels.
    assert mnist.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    sizes = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(mnist.train_labels).tolist() == sizes
    assert mnist.train_inputs.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert mnist.train_inputs.std().item() == pytest.approx(0.3081, abs=5e-5)


def test_the_folder_itself_or_its_parent_may_be_the_root() -> None:
    root = shared("mnist")
    sizes: dict[str, Any] = {"train_size": 100, "test_size": 50}
    parent, itself = (
        load_data("mnist", root=path, **sizes) for path in (root, str(root / "mnist"))
    )
    assert parent.checksum == itself.checksum
    assert parent.train_inputs.shape == (100, 1, 28, 28)


def test_cifar10_from_files() -> None:
    cifar10 = load_data("cifar10", root=shared("cifar10"))
    assert cifar10.train_inputs.shape == (10_000, 3, 32, 32)
    assert cifar10.test_inputs.shape == (1_000, 3, 32, 32)
    assert cifar10.class_names[:3] == ("airplane", "automobile", "bird")
    # Published facts: the first images are a frog and two trucks; the first test image is a cat.
    assert [cifar10.class_names[label] for label in cifar10.train_labels[:3]] == [
        "frog",
        "truck",
        "truck",
    ]
    assert cifar10.class_names[cifar10.test_labels[0]] == "cat"
    assert (255 * cifar10.train_inputs[0, :, 0, 0]).round().tolist() == [59.0, 62.0, 63.0]


def test_cifar10_batches_are_joined_in_order_and_none_twice(tmp_path: Path) -> None:
    def records(label: int, count: int) -> bytes:
        return (bytes([label]) + bytes([10 * label]) * 3072) * count

    (tmp_path / "data_batch_2.bin").write_bytes(records(7, 3))
    (tmp_path / "data_batch_1.bin.gz").write_bytes(gzip.compress(records(4, 2)))
    (tmp_path / "data_batch_1.bin").write_bytes(records(4, 2))
    (tmp_path / "test_batch.bin").write_bytes(records(1, 1))
    cifar10 = load_data("cifar10", root=tmp_path)
    assert cifar10.train_labels.tolist() == [4, 4, 7, 7, 7]
    assert (255 * cifar10.train_inputs[:, 0, 0, 0]).round().tolist() == [40, 40, 70, 70, 70]


# Subsets


@settings(deadline=None)
@given(st.integers(1, 1437), st.integers(1, 360))
def test_subsets_keep_proportions_and_order(train: int, test: int) -> None:
    digits = load_digits_once()
    subset = digits.subset(train=train, test=test)
    assert len(subset.train_labels) == train
    assert len(subset.test_labels) == test
    share = torch.bincount(subset.train_labels, minlength=10)
    exact = torch.bincount(digits.train_labels) * train / len(digits.train_labels)
    assert ((share - exact).abs() < 1).all()
    for label in range(10):
        kept = subset.train_inputs[subset.train_labels == label]
        every = digits.train_inputs[digits.train_labels == label]
        assert torch.equal(kept, every[: len(kept)])


@functools.cache
def load_digits_once() -> Dataset:
    return load_data("digits")


def test_sizes_at_loading_are_subsets() -> None:
    digits = load_digits_once()
    assert (
        load_data("digits", train_size=100, test_size=30).checksum
        == digits.subset(train=100, test=30).checksum
    )
    for whole in (digits.subset(), digits.subset(train=1437, test=360)):
        assert whole.checksum == digits.checksum


@pytest.mark.parametrize(
    ("sizes", "error", "match"),
    [
        ({"train_size": 0}, ValueError, r"train_size must be in 1..1437, .* got 0"),
        ({"test_size": 361}, ValueError, r"test_size must be in 1..360, .* got 361"),
        ({"train_size": 10.5}, TypeError, "train_size must be an integer or None, got 10.5"),
    ],
)
def test_impossible_sizes_are_refused(
    sizes: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        load_data("digits", **sizes)


# Your own arrays


def arrays(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.uniform(-1, 1, (count, 3)), np.arange(count) % 4


def test_own_arrays_are_split_by_class() -> None:
    inputs, labels = arrays()
    custom = Dataset.from_arrays(inputs, labels)
    assert custom.name == "custom"
    assert custom.class_names == ("0", "1", "2", "3")
    assert torch.bincount(custom.train_labels).tolist() == [8, 8, 8, 8]
    assert torch.bincount(custom.test_labels).tolist() == [2, 2, 2, 2]
    together = torch.cat([custom.train_inputs, custom.test_inputs])
    expected = torch.tensor(inputs, dtype=torch.float32)
    assert torch.equal(together.sort(dim=0).values, expected.sort(dim=0).values)
    low, high = custom.value_range
    assert (low, high) == (expected.min().item(), expected.max().item())
    assert Dataset.from_arrays(inputs, labels).checksum == custom.checksum
    assert Dataset.from_arrays(inputs, labels, seed=1).checksum != custom.checksum


def test_own_test_arrays_are_kept_as_they_are() -> None:
    inputs, labels = arrays()
    custom = Dataset.from_arrays(
        torch.tensor(inputs[:30]),
        torch.tensor(labels[:30]),
        test_inputs=inputs[30:],
        test_labels=labels[30:].tolist(),
        class_names=["a", "b", "c", "d", "none"],
        value_range=(-2, 2),
        name="mine",
    )
    assert torch.equal(custom.train_inputs, torch.tensor(inputs[:30]).float())
    assert torch.equal(custom.test_labels, torch.tensor(labels[30:]))
    assert custom.class_names[-1] == "none"
    assert custom.value_range == (-2.0, 2.0)
    assert custom.name == "mine"


def test_the_arrays_are_copied() -> None:
    inputs, labels = arrays()
    custom = Dataset.from_arrays(
        inputs.astype(np.float32), labels, test_inputs=inputs, test_labels=labels
    )
    before = custom.train_inputs.clone()
    inputs[:] = 0
    assert torch.equal(custom.train_inputs, before)


def test_bytes_become_floats() -> None:
    images = np.arange(20, dtype=np.uint8).reshape(20, 1) * 13
    custom = Dataset.from_arrays(images, np.arange(20) % 2)
    assert custom.train_inputs.dtype == torch.float32
    assert custom.value_range == (0.0, 247.0)


def test_a_value_range_is_compared_in_the_precision_of_the_inputs() -> None:
    # 0.1 as float32 is larger than 0.1, yet it is what 0.1 becomes.
    inputs = np.array([[0.1], [-0.1], [0.0], [0.1]])
    custom = Dataset.from_arrays(inputs, [0, 1, 0, 1], test_fraction=0.5, value_range=(-0.1, 0.1))
    assert custom.value_range == (-0.1, 0.1)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        (
            {"inputs": np.zeros((0, 3)), "labels": []},
            ValueError,
            r"inputs must hold .*got \(0, 3\)",
        ),
        (
            {"inputs": np.zeros((40, 0))},
            ValueError,
            r"inputs must hold at least one input .* got \(40, 0\)",
        ),
        ({"inputs": np.zeros(40)}, ValueError, r"got \(40,\); single features take the shape"),
        (
            {"inputs": [["a"]] * 40},
            TypeError,
            "inputs must be an array of real numbers, got dtype <U1",
        ),
        ({"inputs": np.zeros((40, 3), bool)}, TypeError, "inputs must be .* got dtype bool"),
        ({"value_range": (-0.5, 0.5)}, ValueError, r"value_range \(-0.5, 0.5\), got -?0\.[5-9]"),
        ({"value_range": (1, -1)}, ValueError, r"low < high, got \(1.0, -1.0\)"),
        ({"value_range": (-np.inf, 1)}, ValueError, "value_range must be two finite numbers"),
        ({"value_range": 1}, TypeError, r"value_range must be two numbers \(low, high\), got 1;"),
        ({"value_range": "01"}, TypeError, "value_range must be two numbers .*, got '01'"),
        ({"value_range": (-1, 1, 2)}, TypeError, "value_range must be two numbers"),
        ({"value_range": (-np.ones(3), np.ones(3))}, TypeError, "value_range must be two numbers"),
        (
            {"inputs": np.full((40, 3), 1e300)},
            ValueError,
            r"inputs must be finite, got 120 .* \(as torch.float32\)",
        ),
        ({"inputs": [[1], [2, 3]]}, TypeError, "inputs must be an array or a tensor of numbers"),
        (
            {"inputs": np.ma.masked_array(np.ones((40, 3)), np.eye(40, 3))},
            ValueError,
            "inputs must have no masked entries, got some; fill",
        ),
        (
            {"labels": np.r_[np.arange(39) % 4, 10**9]},
            ValueError,
            r"labels must count from 0 .* got 1000000000 among 40 .* np\.unique\(labels, return",
        ),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"seed": 2**63}, ValueError, r"seed must be below 2\^63, got 9223372036854775808"),
        ({"seed": "x"}, TypeError, "seed must be an integer, got 'x'"),
        ({"test_fraction": "x"}, TypeError, "test_fraction must be one number, .*, got 'x'"),
        (
            {"inputs": np.zeros((40, 3))},
            ValueError,
            r"low < high, got \(0.0, 0.0\); pass the range",
        ),
        ({"labels": []}, ValueError, r"each of the 40 inputs.* got shape \(0,\)"),
        ({"labels": np.arange(39) % 4}, ValueError, r"each of the 40 inputs.* got shape \(39,\)"),
        ({"labels": np.zeros((40, 1), int)}, ValueError, r"got shape \(40, 1\)"),
        ({"labels": np.arange(40) % 4 - 1}, ValueError, "labels must be 0 or more, got -1"),
        (
            {"labels": np.arange(40) / 10},
            TypeError,
            "labels must be an array of integers, got dtype float64",
        ),
        ({"labels": np.zeros(40, int)}, ValueError, r"at least two classes, got \('0',\)"),
        ({"class_names": ["a", "b"]}, ValueError, r"in 0..1, an index of class_names, got 3"),
        (
            {"test_inputs": np.zeros((5, 3))},
            ValueError,
            "test_labels must be given with test_inputs",
        ),
        ({"test_labels": [0]}, ValueError, "test_inputs must be given with test_labels"),
        (
            {"test_inputs": np.zeros((5, 2)), "test_labels": [0] * 5},
            ValueError,
            r"test_inputs must have the input shape of train_inputs, \(3,\), got \(2,\)",
        ),
        ({"test_fraction": 1.0}, ValueError, "test_fraction must lie between 0 and 1, got 1.0"),
        ({"test_fraction": 0.001}, ValueError, "0.001 of 40 inputs; pass test_inputs"),
        ({"test_fraction": float("nan")}, ValueError, "test_fraction must lie .* got nan"),
    ],
)
def test_wrong_arrays_are_refused(
    changes: dict[str, Any], error: type[Exception], match: str
) -> None:
    inputs, labels = arrays()
    with pytest.raises(error, match=match):
        Dataset.from_arrays(**{"inputs": inputs, "labels": labels, **changes})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.5])
@pytest.mark.parametrize("value_range", [(-1, 1), None])
def test_a_single_wrong_value_is_found_and_named(
    value: float, value_range: tuple[float, float] | None
) -> None:
    inputs, labels = arrays()
    inputs[17, 1] = value
    match = r"inputs must be finite, got 1 NaN or infinite of 120 .* at \[17, 1\]; remove or impute"
    if np.isfinite(value):
        match, value_range = r"_inputs must lie in value_range .* got 2.5; rescale", (-1, 1)
    with pytest.raises(ValueError, match=match):
        Dataset.from_arrays(inputs, labels, value_range=value_range)
    digits = load_digits_once()
    gap = digits.test_inputs.clone()
    gap[3, 0, 2, 1] = value
    match = match.replace("120", "23040").replace("17, 1", "3, 0, 2, 1")
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(digits, test_inputs=gap)


def test_numbers_and_names_of_any_library_are_kept_as_pythons_own() -> None:
    inputs, labels = arrays()
    given: dict[str, Any] = {
        "class_names": np.unique(labels),
        "value_range": (np.float32(-1), torch.tensor(1.0)),
        "name": Path("mine"),
        "seed": np.int64(0),
    }
    custom = Dataset.from_arrays(inputs, labels, **given)
    assert repr((custom.class_names, custom.value_range, custom.name)) == (
        "(('0', '1', '2', '3'), (-1.0, 1.0), 'mine')"
    )
    plain = Dataset.from_arrays(inputs, labels, value_range=(-1, 1))
    assert custom.checksum == plain.checksum


def test_labels_may_leave_out_a_few_numbers() -> None:
    inputs, labels = arrays()
    assert Dataset.from_arrays(inputs, np.where(labels == 3, 999, labels)).classes == 1000


def test_half_precision_becomes_float32() -> None:
    inputs, labels = arrays()
    half = torch.tensor(inputs).bfloat16()
    custom = Dataset.from_arrays(half, labels, test_inputs=half, test_labels=labels)
    assert torch.equal(custom.train_inputs, half.float())


def test_datasets_take_tensors_of_one_kind_only() -> None:
    digits = load_digits_once()
    with pytest.raises(
        TypeError, match=r"train_inputs must be a float32 tensor, got torch.float64"
    ):
        dataclasses.replace(digits, train_inputs=digits.train_inputs.double())
    with pytest.raises(TypeError, match=r"test_labels must be an int64 tensor, got torch.int32"):
        dataclasses.replace(digits, test_labels=digits.test_labels.int())
    with pytest.raises(dataclasses.FrozenInstanceError):
        digits.name = "other"  # type: ignore[misc]


def test_the_checksum_is_of_the_content() -> None:
    digits = load_digits_once()
    assert dataclasses.replace(digits, name="other").checksum == digits.checksum
    changed = digits.test_inputs.clone()
    changed[-1, 0, 7, 7] += 0.5
    assert dataclasses.replace(digits, test_inputs=changed).checksum != digits.checksum
    assert dataclasses.replace(digits, value_range=(0.0, 2.0)).checksum != digits.checksum
    # Moving an image from one part to the other keeps the bytes in line.
    moved = dataclasses.replace(
        digits,
        train_inputs=digits.train_inputs[:-1],
        train_labels=digits.train_labels[:-1],
        test_inputs=torch.cat([digits.train_inputs[-1:], digits.test_inputs]),
        test_labels=torch.cat([digits.train_labels[-1:], digits.test_labels]),
    )
    assert moved.checksum != digits.checksum


# Names and roots


@pytest.mark.parametrize(
    ("name", "hint"),
    [("digit", "digits"), ("MNIST", None), ("mnst", "mnist"), ("cifar-10", "cifar10")],
)
def test_unknown_names_are_refused_with_the_near_match(name: str, hint: str | None) -> None:
    with pytest.raises(
        ValueError, match=f"data must be one of 'digits', .* got '{name}'"
    ) as caught:
        load_data(name)
    assert ("did you mean" in str(caught.value)) == (hint is not None)
    assert hint is None or f"did you mean '{hint}'?" in str(caught.value)


@pytest.mark.parametrize("name", ["digits", "moons"])
def test_a_root_where_none_is_used_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"root must be None for data '{name}'"):
        load_data(name, root=tmp_path)


def test_a_root_that_is_no_path_and_a_seed_that_is_no_number_are_refused() -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="root must be a folder, got 3; pass its path"):
        load_data("mnist", root=wrong)
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        load_data("friedman", seed=-1)


def test_cifar10_needs_a_root() -> None:
    with pytest.raises(ValueError, match=r"root must be given for data 'cifar10'.*pass its folder"):
        load_data("cifar10")


# Files at fault


@pytest.fixture
def mnist_copy(tmp_path: Path) -> Path:
    """MNIST whose files can be replaced: links to the real ones."""
    source = shared("mnist") / "mnist"
    for name in MNIST_NAMES:
        (tmp_path / f"{name}.gz").symlink_to(source / f"{name}.gz")
    return tmp_path


def replace(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def test_a_missing_file_is_named(mnist_copy: Path) -> None:
    (mnist_copy / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        load_data("mnist", root=mnist_copy)
    message = str(caught.value)
    assert "root must hold the file t10k-labels-idx1-ubyte (plain or .gz)" in message
    assert str(mnist_copy) in message
    assert "leave out root= to download it" in message


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte.*nowhere does not"):
        load_data("mnist", root=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"data_batch_\*\.bin.*nowhere does not"):
        load_data("cifar10", root=tmp_path / "nowhere")


def test_plain_files_are_read_as_well(mnist_copy: Path) -> None:
    expected = load_data("mnist", root=mnist_copy, train_size=10, test_size=10).checksum
    for name in MNIST_NAMES:
        compressed = mnist_copy / f"{name}.gz"
        (mnist_copy / name).write_bytes(gzip.decompress(compressed.read_bytes()))
        compressed.unlink()
    assert load_data("mnist", root=mnist_copy, train_size=10, test_size=10).checksum == expected


def idx(magic: int, shape: tuple[int, ...], content: bytes) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in (magic, *shape)) + content


IMAGES = "train-images-idx3-ubyte"


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        (f"{IMAGES}.gz", b"not gzip at all", "must be a gzip file, but it is corrupted"),
        (f"{IMAGES}.gz", gzip.compress(bytes(10**6))[:-300], "whole gzip file.*it is truncated"),
        (f"{IMAGES}.gz", gzip.compress(bytes(range(256)))[:-6] + b"??????", "it is corrupted"),
        (f"{IMAGES}.gz", b"", "IDX magic number 2051, got 0"),
        (IMAGES, b"\0\0\x08", "IDX magic number 2051, got 8"),
        (IMAGES, b"<html>503 try later</html>", "magic number 2051, got 1013478509: it is not the"),
        (IMAGES, idx(2049, (5,), bytes(5)), "magic number 2051, got 2049"),
        (
            IMAGES,
            idx(2051, (60000, 28, 28), bytes(1000)),
            r"47040016 bytes .* shape \(60000, 28, 28\) in its header, got 1016: it is truncated",
        ),
        (IMAGES, idx(2051, (60000,), b""), "got 8: it is truncated"),
        (IMAGES, idx(2051, (2, 28, 28), bytes(2 * 784 + 1)), "it is too long"),
        (
            IMAGES,
            idx(2051, (3, 28, 28), bytes(3 * 784)),
            "content of MNIST .* corrupted or another data set; .* use Dataset.from_arrays",
        ),
    ],
)
def test_faulty_files_are_named(mnist_copy: Path, name: str, content: bytes, match: str) -> None:
    path = replace(mnist_copy, name, content)
    with pytest.raises(ValueError, match=match) as caught:
        load_data("mnist", root=mnist_copy)
    assert str(caught.value).startswith(str(path))
    assert "get the file again, or for MNIST leave out root= to download it" in str(caught.value)


def test_a_single_changed_pixel_is_found(mnist_copy: Path) -> None:
    path = mnist_copy / "t10k-images-idx3-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-12345] ^= 1
    replace(mnist_copy, path.name, gzip.compress(bytes(content), compresslevel=1))
    with pytest.raises(ValueError, match="it is corrupted or another data set"):
        load_data("mnist", root=mnist_copy)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (bytes(3072), "whole CIFAR-10 records of 3073 bytes .* got 3072 bytes"),
        (b"", "got 0 bytes"),
        (bytes([10]) + bytes(3072), "labels in 0..9 at the start of each record, got 10"),
    ],
)
def test_faulty_cifar10_files_are_named(tmp_path: Path, content: bytes, match: str) -> None:
    path = replace(tmp_path, "data_batch_1.bin", content)
    with pytest.raises(ValueError, match=match) as caught:
        load_data("cifar10", root=tmp_path)
    assert str(caught.value).startswith(str(path))


# The download, from a server of our own


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


NOBODY = "http://127.0.0.1:9/"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("QWIDGETS_CACHE", str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # Whatever archives the tests find: only their content has to be the published one.
    source = shared("mnist") / "mnist"
    files = [
        file._replace(archive=hashlib.sha256((source / f"{file.name}.gz").read_bytes()).hexdigest())
        for file in data_module._MNIST_FILES
    ]
    monkeypatch.setattr(data_module, "_MNIST_FILES", files)
    return folder


def test_mnist_is_downloaded_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[str, Any] = {"train_size": 20, "test_size": 20}
    expected = load_data("mnist", root=shared("mnist"), **sizes).checksum
    with serving(shared("mnist") / "mnist") as address:
        # The first mirror is down: the second one serves.
        monkeypatch.setattr(data_module, "_MNIST_MIRRORS", (NOBODY, address))
        assert load_data("mnist", **sizes).checksum == expected
    assert sorted(path.name for path in cache.iterdir()) == sorted(
        f"{name}.gz" for name in MNIST_NAMES
    )
    # The server is gone: the cache serves.
    assert load_data("mnist", **sizes).checksum == expected


def test_a_failed_download_names_the_remedy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "_MNIST_MIRRORS", (NOBODY,))
    with pytest.raises(ConnectionError, match=r"train-images-idx3-ubyte\.gz could not.*as root="):
        load_data("mnist")
    assert not list(cache.glob("*.gz"))


def test_a_wrong_download_is_refused_and_not_kept(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal = tmp_path / "portal"
    portal.mkdir()
    (portal / f"{IMAGES}.gz").write_bytes(b"<html>please log in</html>")
    with serving(portal) as address:
        monkeypatch.setattr(data_module, "_MNIST_MIRRORS", (address,))
        with pytest.raises(ConnectionError, match=r"hash.*pass their folder as root="):
            load_data("mnist")
    assert not list(cache.glob("*.gz"))


def test_the_registry_knows_the_published_archives() -> None:
    """Published MD5 sums of three archives that lie with the test data, byte for byte."""
    published = {
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    }
    registry = {file.name: file.archive for file in data_module._MNIST_FILES}
    assert sorted(registry) == sorted(MNIST_NAMES)
    for name, md5 in published.items():
        archive = (shared("mnist") / "mnist" / f"{name}.gz").read_bytes()
        if hashlib.md5(archive, usedforsecurity=False).hexdigest() != md5:
            pytest.skip(f"{name}.gz was recompressed")
        assert hashlib.sha256(archive).hexdigest() == registry[name]
