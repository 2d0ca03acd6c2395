"""Which strategy evaluates the networks of a sweep fastest: measured once on each machine.

What is fastest depends on the architecture, the device and the versions of both; it is not worth
guessing and not worth measuring twice. The choice is remembered in the user's cache, so that the
same call on the same machine gives the same cube, bit for bit, whatever else the machine was doing.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pooch
import torch

from qwidgets.ensemble import STRATEGIES, batched_forward, stack_parameters
from qwidgets.training import Step, train

if TYPE_CHECKING:
    from torch import nn

    from qwidgets.data import Dataset
    from qwidgets.ensemble import Strategy
    from qwidgets.training import TrainingSettings

_FILE = "strategies.json"
# A few networks and a few minibatches predict what many would take.
_NETWORKS = {"cpu": 2}
_MANY_NETWORKS = 16
_MINIBATCHES = 3
# The strategy of the rule stays unless another one saves this share of the time: timings on a busy
# machine differ by less from one day to the next.
_WORTH = 0.15
# Radius and strength of the networks that are timed: any value above 0 costs the same.
_SOME = 0.01


def fastest_strategy(
    network: nn.Module, data: Dataset, settings: TrainingSettings, device: str
) -> Strategy:
    """Choose the strategy in which a grid of networks trains fastest on a device.

    A `Sequential` of `Flatten`, `Linear` and `ReLU` is ``"stacked"`` without a measurement: it has
    been fastest everywhere. For other networks ``"vmap"`` and ``"loop"`` train a few of them for a
    few minibatches, with the objective, the regularizer and the minibatches of the settings but one
    step of attack. The rule of `batched_forward` decides unless the other one is at least 15 %
    faster.

    Parameters
    ----------
    network : torch.nn.Module
        The architecture, with initial weights; it is moved to the device.
    data : Dataset
        What will be trained on.
    settings : TrainingSettings
        How.
    device : str
        Where.

    Returns
    -------
    {"stacked", "vmap", "loop"}

    Raises
    ------
    ValueError
        It can be trained in neither way.
    """
    network = network.to(device).eval()
    rule = batched_forward(network, data.input_shape).strategy
    if rule == "stacked":
        return rule
    name = _fingerprint(network, data, settings, device)
    known = _remembered()
    if name not in known:
        candidates = [strategy for strategy in STRATEGIES if strategy != "stacked"]
        seconds: dict[Strategy, float] = {}
        errors = []
        for strategy in candidates:
            try:
                seconds[strategy] = _seconds(network, data, settings, device, strategy)
            except (RuntimeError, UserWarning) as error:
                # What one strategy cannot do, recurrent layers under vmap say, another may.
                errors.append(error)
        if not seconds:
            message = (
                "model must be a network that can be trained here, but: "
                f"{'; '.join(map(str, errors))}; another regularizer than 'gradient' needs no "
                "second derivative."
            )
            raise ValueError(message) from errors[-1]
        fastest = min(seconds, key=seconds.__getitem__)
        stays = rule in seconds and seconds[fastest] >= (1 - _WORTH) * seconds[rule]
        known[name] = rule if stays else fastest
        _remember(known)
    return known[name]


def _seconds(
    network: nn.Module,
    data: Dataset,
    settings: TrainingSettings,
    device: str,
    strategy: Strategy,
) -> float:
    """Time a minibatch: the least of a few, but the first, which also prepares things."""
    count = _NETWORKS.get(torch.device(device).type, _MANY_NETWORKS)
    events = train(
        batched_forward(network, data.input_shape, strategy=strategy),
        stack_parameters([network] * count),
        data,
        torch.full((count,), _SOME, dtype=torch.float64),
        torch.full((count,), _SOME, dtype=torch.float64),
        replace(settings, attack_steps=1, warm_up=0.0, epochs=_MINIBATCHES),
        device,
    )
    durations: list[float] = []
    before = time.perf_counter()
    while len(durations) < _MINIBATCHES:
        event = next(events)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)
        after = time.perf_counter()
        # What ends an epoch is no minibatch.
        durations += [after - before] if isinstance(event, Step) else []
        before = after
    del events  # closes it
    return min(durations[1:])


def _fingerprint(network: nn.Module, data: Dataset, settings: TrainingSettings, device: str) -> str:
    """Name what the answer mostly depends on; machines that share a cache may share an answer."""
    place = torch.device(device)
    chip = torch.cuda.get_device_name(place) if place.type == "cuda" else platform.machine()
    shapes = [(name, tuple(value.shape)) for name, value in network.named_parameters()]
    facts = (
        *(str(network), shapes, data.input_shape, data.classes),
        *(settings.batch_size, settings.objective, settings.regularizer, settings.norm),
        *(place.type, chip, os.cpu_count(), torch.__version__),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _place() -> Path:
    return Path(os.environ.get("QWIDGETS_CACHE") or pooch.os_cache("qwidgets")) / _FILE


def _remembered() -> dict[str, Strategy]:
    try:
        known = json.loads(_place().read_text("utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: it is measured again
        return {}
    if not isinstance(known, dict):
        return {}
    return {name: choice for name, choice in known.items() if choice in STRATEGIES}


def _remember(known: dict[str, Strategy]) -> None:
    place = _place()
    new = place.with_name(f"{_FILE}.{os.getpid()}")
    with suppress(OSError):  # a machine without a cache measures every time
        place.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(known, indent=1, sort_keys=True), "utf-8")
        new.replace(place)
