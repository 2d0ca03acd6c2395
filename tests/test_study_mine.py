"""The study of a network of one's own: what is accepted, refused, measured and concluded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reproduced import VERDICTS, read
from torch import nn
from typer.testing import CliRunner

import qwidgets as qw
from qwidgets import cli, studies
from qwidgets.studies import mine
from qwidgets.studies.study import Setting, columns, iterate_study

MODULE = """
import torch
import qwidgets as qw
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Tanh(),
                         nn.Linear(32, 10))


def trained():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Net()
    data = qw.load_data("digits")
    optimizer = torch.optim.Adam(net.parameters(), 2e-2)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(data.train_inputs), data.train_labels).backward()
        optimizer.step()
    return net  # in train mode


def double():
    return trained().double()


def half():
    return trained().half()


def nine():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))


def needs(x):
    return x


def none():
    return None


def raises():
    raise RuntimeError("no disk")


def diverged():
    net = Net()
    net[1].weight.data[0, 0] = float("nan")
    return net


def empty():
    with torch.device("meta"):
        return Net()


class Single(Net):
    def forward(self, x):
        return super().forward(x + torch.zeros(1)) @ torch.eye(10)


def single():
    net = Single()
    net.load_state_dict(trained().state_dict())
    return net


number = 3
made = Net()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("mine")
    (place / "own_networks.py").write_text(MODULE, "utf-8")
    (place / "ends_the_process.py").write_text("raise SystemExit(3)", "utf-8")
    (place / "needs_another.py").write_text("import no_such_package", "utf-8")
    data = qw.load_data("digits")
    x, y = data.test_inputs.numpy(), data.test_labels.numpy()
    np.savez(place / "good.npz", inputs=x, labels=y, value_range=(0, 1))
    np.savez(place / "shape.npz", inputs=x[:, :, :4], labels=y)
    np.savez(place / "names.npz", x=x, y=y)
    np.savez(place / "short.npz", inputs=x, labels=y[:10])
    np.savez(place / "objects.npz", inputs=np.array([{}], dtype=object), labels=y[:1])
    np.savez(place / "mean.npz", inputs=x, labels=y, mean=0.5)
    (place / "text.npz").write_text("hello", "utf-8")
    torch.save(nn.Linear(2, 2).state_dict(), place / "other.pt")
    (place / "empty").mkdir()
    return place


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "'mine' needs model and data, got neither"),
        (["--model", "own_networks:trained"], "needs model and data, got model"),
        (["--model", "own_networks"], "model must be module:factory, got 'own_networks'"),
        (["--model", "no_such_module:x"], "there is no 'no_such_module'"),
        (["--model", "ends_the_process:x"], "'ends_the_process' fails with SystemExit: 3"),
        (["--model", "needs_another:x"], "needs the module 'no_such_package', which is missing"),
        (["--model", "own_networks:nope"], "there is no 'nope'"),
        (["--model", "own_networks:number"], "is of type int"),
        (["--model", "own_networks:needs"], "needs no arguments, but 'own_networks:needs' fails"),
        (["--model", "own_networks:none"], "'own_networks:none' returns NoneType"),
        (["--model", "own_networks:raises"], "fails with RuntimeError: no disk"),
        (["--model", "own_networks:diverged"], "finite weights, got NaN or infinity in '1.weight'"),
        (["--model", "own_networks:empty"], "'1.weight' is on the device 'meta'"),
        (["--model", "own_networks:nine"], "logits of shape (2, 10)"),
        (["--model", "own_networks:Net", "--weights", "other.pt"], "must be those of the model"),
        (["--model", "own_networks:Net", "--weights", "no.pt"], "there is none at no.pt"),
        (["--model", "own_networks:Net", "--weights", "text.npz"], "cannot be read as one"),
        (["--data", "shape.npz"], "must take inputs of shape (2, 1, 4, 8)"),
        (["--data", "names.npz"], "must hold inputs and labels, or test_inputs and test_labels"),
        (["--data", "short.npz"], "labels must hold one label for each of the 360 inputs"),
        (["--data", "objects.npz"], "must be an .npz file of plain arrays"),
        (["--data", "text.npz"], "must be an .npz file of plain arrays"),
        (["--data", "mean.npz"], "must hold both mean and std, or neither"),
        (["--data", "nowhere"], "there is nothing at 'nowhere'"),
        (["--data", "empty"], "holds neither; arrays go in an .npz file"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_remedy(arguments, words):
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    if arguments and "--data" not in given and given != {"--model": "own_networks:trained"}:
        given["--data"] = "good.npz"
    given |= {"--model": "own_networks:made"} if "--model" not in given and given else {}
    run = CliRunner().invoke(
        cli.app, ["reproduce", "mine", *(part for pair in given.items() for part in pair)]
    )
    assert run.exit_code == 2
    assert words in run.output.replace("\n", " ")


def test_a_model_is_for_mine_alone():
    with pytest.raises(ValueError, match="model is for 'mine' alone, got it for 'bounds'"):
        studies.named("bounds", model="own_networks:trained", data="good.npz")
    with pytest.raises(ValueError, match="needs model and data, got data"):
        studies.named("all", data="good.npz")
    assert [study.name for study in studies.named("all")] == list(studies.STUDIES)
    own = studies.named("all", model="own_networks:made", data="good.npz")
    assert [study.name for study in own] == [*studies.STUDIES, "mine"]


def test_weights_that_a_factory_draws_are_the_same_in_every_run():
    torch.rand(3)  # whatever was drawn before
    before = torch.get_rng_state()
    one, same = (mine.load_model("own_networks:Net") for _ in range(2))
    other = mine.load_model("own_networks:Net", seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one[1].weight, same[1].weight)
    assert not torch.equal(one[1].weight, other[1].weight)


def test_networks_that_differ_in_code_alone_are_told_apart():
    class Squared(nn.Module):
        power = 2

        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x.flatten(1) ** self.power)

    data = qw.load_data("digits")
    network = Squared(mine.load_model("own_networks:nine")[1])
    ten = qw.Dataset.from_arrays(
        data.test_inputs, data.test_labels % 9, class_names=list("abcdefghi"), value_range=(0, 1)
    )
    known = mine._fingerprint(mine.Given(network, ten, None))
    assert mine._fingerprint(mine.Given(network, ten, None)) == known
    network.power = 3
    assert mine._fingerprint(mine.Given(network, ten, None)) != known


def test_products_are_held_against_an_independent_bound():
    domain = qw.Neighborhood([[0.5]], 0.5)
    line, wave = (
        qw.uncertainty(loss, domain, samples=1024, seed=seed)
        for seed, loss in enumerate(
            (lambda x: x[:, 0], lambda x: (2 * torch.pi * x[:, 0]).sin().abs())
        )
    )
    # Against its own bound no estimate can fail; 0.168 against that of another loss, 1/2, does.
    assert (line.product >= line.bound).all()
    assert (mine._margins(line, wave) < -4).all()
    assert (mine._margins(wave, line) > 4).all()
    assert mine._radii(line, wave)["pixels_below_bound"] == 1


@pytest.mark.parametrize("factory", ["double", "half", "made", "single"])
def test_any_precision_and_a_module_itself_are_taken(factory):
    assert mine.study(f"own_networks:{factory}", "good.npz").name == "mine"


def test_weights_are_loaded_from_either_format(folder):
    from safetensors.torch import save_file

    network = mine.load_model("own_networks:trained")
    state = network.state_dict()
    torch.save(state, folder / "own.pt")
    save_file(state, folder / "own.safetensors")
    for name in ("own.pt", "own.safetensors"):
        loaded = mine.load_model("own_networks:Net", folder / name).state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in state)


def finished(study, folder, *, seed=1):
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    setting = Setting(size="smallest", seed=seed, root=None, folder=parts)
    *_, last = iterate_study(study, setting, folder)
    tables = {part: read(folder / f"{part}.csv") for part in study.parts}
    return tables, last.conclusion


@pytest.mark.slow
def test_code_that_insists_on_single_precision_is_measured_in_it(tmp_path):
    tables, found = finished(mine.study("own_networks:single", "good.npz"), tmp_path)
    assert found.claims[0].verdict == "supported"
    assert (tables["images"]["product"] >= 0.5 * (1 - 1e-3)).all()


@pytest.mark.slow
def test_a_network_is_measured_and_judged(tmp_path):
    study = mine.study("own_networks:trained", "good.npz")
    tables, found = finished(study, tmp_path / "a")
    assert {claim.verdict for claim in found.claims} <= VERDICTS
    assert found.claims[0].verdict == found.claims[1].verdict == "supported"
    assert found.claims[2].verdict == "supported under a condition"
    images, classes = tables["images"], tables["classes"]
    assert (images["product"] >= 0.5 - 1e-6).all()
    assert (classes["pixels_below_bound"] == 0).all()
    assert len(classes["label"]) == 10
    for table in tables.values():
        for name, values in table.items():
            if values.dtype.kind == "f":
                assert np.isfinite(values).all(), name
    assert (tmp_path / "a" / "explorer.html").stat().st_size > 500_000
    report = (tmp_path / "a" / "report.md").read_text("utf-8")
    assert "reproduce mine --model own_networks:trained --data good.npz" in report
    # One seed gives one table; a finished part is not done again, but for other weights it is.
    finished(mine.study("own_networks:trained", "good.npz"), tmp_path / "b")
    for part in tables:
        name = f"{part}.csv"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert study.given == mine.study("own_networks:trained", "good.npz").given
    assert study.given != mine.study("own_networks:made", "good.npz").given


def test_correlations_are_judged_by_their_interval():
    x = np.arange(40.0)
    assert mine._correlated("It falls.", "x", x, -x, "images").verdict == "supported"
    rises = mine._correlated("It falls.", "x", x, x, "images")
    assert (rises.verdict, rises.condition) == ("not supported", "The reverse.")
    noise = np.random.default_rng(0).normal(size=40)
    assert mine._correlated("It falls.", "x", x, noise, "images").verdict == "not supported"
    few = mine._correlated("It falls.", "x", x[:3], -x[:3], "classes")
    assert (few.verdict, few.condition) == ("not supported", "Not measurable here.")


def test_the_reverse_is_explained_only_where_the_packets_show_it():
    x = np.arange(40.0)
    c = {"momentum_std": x, "withstood": x, "position_mean": x}
    reverse = mine._fragile(c)
    assert reverse.verdict == "not supported"
    assert "farther out along the attack" in reverse.condition
    assert mine._fragile({**c, "position_mean": -x}).condition == "The reverse."
    assert mine._fragile({**c, "withstood": -x}).verdict == "supported"


def test_verdicts_on_bounds_and_chance_flip():
    classes = columns(
        [
            {
                "Dx": 2.0,
                "Dx_error": 0.01,
                "Dp": 2.0,
                "Dp_error": 0.01,
                "bound": 1.0,
                "bound_error": 0.01,
                "boundary": 1.0,
                "pixels": 64,
                "pixels_below_bound": 0,
                "pixels_below_half": 64,
                "pixels_below_half_without_boundary": 0,
                "least_margin": 0.5,
                "self_check": 1.0,
            }
        ]
    )
    images = {"product": np.array([0.5, 0.6])}
    assert mine._bound(classes, images).verdict == "supported"
    assert mine._one_half(classes, images).verdict == "supported under a condition"
    assert mine._bound({**classes, "bound": np.array([5.0])}, images).verdict == "not supported"
    for broken in ({"pixels_below_bound": np.array([1])}, {"self_check": np.array([4.1])}):
        assert mine._bound({**classes, **broken}, images).verdict == "not supported"
    low = {"product": np.array([0.4])}
    assert mine._bound(classes, low).verdict == "not supported"
    assert mine._one_half(classes, low).verdict == "not supported"
    inside = {**classes, "pixels_below_half_without_boundary": np.array([1])}
    assert mine._one_half(inside, images).verdict == "not supported"
    free = {**classes, "pixels_below_half": np.array([0])}
    assert mine._one_half(free, images).verdict == "supported"
    curve = {
        "attack_epsilon": np.array([0, 0.1]),
        "accuracy": np.array([0.9, 0.5]),
        "accuracy_error": np.array([0.01, 0.01]),
        "images": np.array([500, 500]),
        "commonest_class": np.array([0.1, 0.1]),
    }
    assert mine._knows(curve).verdict == "supported"
    assert mine._knows({**curve, "accuracy": np.array([0.12, 0])}).verdict == "not supported"
