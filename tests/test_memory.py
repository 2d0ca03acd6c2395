"""The memory of a sweep: told before, refused where it is not there, halved where it runs out."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
from torch import nn

import qwidgets as qw
from qwidgets.memory import Memory, readable
from qwidgets.plan import Arguments, planned

# Runs a sweep in a process of its own and prints by how much its memory grew at most.
GROWTH = """
import ctypes, gc, re, sys, torch, qwidgets as qw
torch.set_num_threads(1)

def memory(which):
    status = open("/proc/self/status").read()
    return 1024 * int(re.search(which + r":\\s*(\\d+) kB", status).group(1))

settings = eval(sys.argv[1])
qw.sweep(epsilon=[0.1], regularization=[0.1], epochs=1, train_size=100, test_size=50,
         data="digits", model=settings["model"], progress=False)
gc.collect()
ctypes.CDLL(None).malloc_trim(0)  # what is kept for the next operation is not counted twice
open("/proc/self/clear_refs", "w").write("5")  # the peak begins again
before = memory("VmRSS")
qw.sweep(**settings, progress=False)
print(memory("VmHWM") - before)
"""
# The networks are trained with room for a few of them, but not for all eight.
TIGHT = """
import resource, psutil, torch, numpy as np, qwidgets as qw
from torch import nn
from qwidgets import batches
torch.set_num_threads(1)

def wide():
    return nn.Sequential(nn.Flatten(-3), nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 10))

def grown():
    return qw.sweep("digits", wide, [0, 0.1], [0, 0.1, 0.2, 0.3], epochs=1, batch_size=1437,
                    test_size=100, detail=None, progress=False)

abreast = []
checkpoints = batches._checkpoints

def noted(done, *others):
    abreast.append(max(len(epoch.train_loss) for epoch, *_ in done))
    return checkpoints(done, *others)

batches._checkpoints = noted
whole = grown()
start = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (start + (600 << 20), resource.RLIM_INFINITY))
parts = grown()
assert abreast[:2] == [8, 8] and abreast[-1] < 8, abreast
for epsilon in (0, 0.1):
    one, other = (sweep.model(epsilon=epsilon, regularization=0.3) for sweep in (whole, parts))
    for a, b in zip(one.parameters(), other.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
print("the same networks")
"""


def run(program, *arguments):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is told by Linux")
@pytest.mark.parametrize(
    "settings",
    [
        {
            "epsilon": [0, 0.1, 0.2],
            "regularization": [0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07],
            "epochs": 2,
            "batch_size": 1437,
        },
        {
            "epsilon": [0.1],
            "regularization": [0.1],
            "epochs": 1,
            "batch_size": 512,
            "model": "resnet",
            "train_size": 512,
            "detail": None,
        },
    ],
    ids=["many perceptrons", "a residual network"],
)
def test_the_estimate_is_of_the_size_of_what_is_taken(settings):
    settings = {"data": "digits", "model": "mlp", **settings}
    told = planned(Arguments(**settings)).memory.total
    taken = int(run(GROWTH, repr(settings)))
    assert taken < 1.5 * told
    assert told < 4 * taken


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"batch_size": 1437}, "lower batch_size"),
        ({"epochs": 10**9}, "take fewer epochs"),
    ],
)
def test_what_cannot_fit_is_refused_before_any_work(changes, remedy, monkeypatch):
    free = SimpleNamespace(available=600 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    text = rf"must fit into memory, but needs about .* are free; .*{remedy}"
    with pytest.raises(MemoryError, match=text):
        qw.iterate_sweep("digits", **changes)


def test_a_minibatch_takes_no_more_than_all_images():
    whole, more = (planned(Arguments(batch_size=size)).memory for size in (1437, 10**12))
    assert whole == more


def test_a_model_that_does_not_fit_is_refused(monkeypatch):
    data = qw.load_data("moons", train_size=40, test_size=20)
    free = SimpleNamespace(available=1 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(MemoryError, match=r"networks .* of which 1.0 MiB are free"):
        qw.iterate_sweep(data, lambda: nn.Sequential(nn.Linear(2, 50_000), nn.Linear(50_000, 2)))


def test_an_executor_has_the_memory_of_its_own_machines():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor:
        qw.iterate_sweep("digits", epochs=10**9, executor=executor).close()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_where_memory_runs_out_fewer_networks_are_trained_at_a_time():
    assert run(TIGHT) == "the same networks"


def test_sizes_are_readable():
    assert readable(12) == "12 bytes"
    assert readable(3 << 19) == "1.5 MiB"
    assert str(Memory(images=0, networks=1 << 30, activations=0, cube=0)) == "1.2 GiB"
