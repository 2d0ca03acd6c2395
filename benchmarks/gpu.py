"""The engine on a GPU beside the same training on the processor, for every model and strategy.

Run it as ``python benchmarks/gpu.py``. Where PyTorch finds no CUDA device it says so and measures
nothing. Trained are networks of all models on images of the shapes of digits, MNIST and CIFAR-10;
their pixels are random, which changes no timing. Each timing is the second epoch of two. For each
model the strategy that the rule chooses is marked, and the distance (l2) between the weights after
an epoch on either device is printed, as a part of the distance that they moved.
"""

from __future__ import annotations

import argparse
import time

import torch

import qwidgets as qw
from qwidgets.ensemble import STRATEGIES, BatchedForward, batched_forward, stack_parameters
from qwidgets.training import Epoch, TrainingSettings, train

SHAPES = {"digits": (1, 8, 8), "MNIST": (1, 28, 28), "CIFAR-10": (3, 32, 32)}
MODELS = ("mlp", "conv", "resnet", "attention")


def trained(
    forward: BatchedForward, start: dict[str, torch.Tensor], data: qw.Dataset, device: str
) -> tuple[float, dict[str, torch.Tensor]]:
    """Seconds that the second epoch takes, and the weights after the first, on the processor."""
    networks = len(next(iter(start.values())))
    events = train(
        forward,
        start,
        data,
        torch.linspace(0, 0.1, networks, dtype=torch.float64),
        torch.full((networks,), 0.1, dtype=torch.float64),
        TrainingSettings(epochs=2, batch_size=64, learning_rate=1e-3, warm_up=0.0),
        device,
    )
    ends, weights = [], []
    for event in events:
        if isinstance(event, Epoch):
            # Copying waits for the device to finish.
            weights.append({name: value.cpu() for name, value in event.parameters.items()})
            ends.append(time.perf_counter())
    return ends[2] - ends[1], weights[1]


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Euclidean distance of two sets of weights."""
    return sum(float((one[name] - other[name]).square().sum()) for name in one) ** 0.5


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="what to compare with the processor")
    parser.add_argument("--networks", type=int, default=16)
    parser.add_argument("--images", type=int, default=1024)
    chosen = parser.parse_args()
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device here: nothing measured")
        return
    print(f"{chosen.networks} networks, {chosen.images} images, PGD-5 with gradient penalty")
    print("data      model       strategy   processor s   device s   ratio   weights differ by")
    for kind, shape in SHAPES.items():
        generator = torch.Generator().manual_seed(0)
        inputs = torch.rand((chosen.images + 20, *shape), generator=generator)
        centered = (inputs - 0.5).flatten(1)
        labels = (centered @ torch.randn((centered.shape[1], 10), generator=generator)).argmax(1)
        data = qw.Dataset.from_arrays(
            inputs[20:], labels[20:], test_inputs=inputs[:20], test_labels=labels[:20]
        )
        for name in MODELS:
            network = qw.build_model(name, data)
            start = stack_parameters([network] * chosen.networks)
            plain = batched_forward(network, shape)
            seconds, expected = trained(plain, start, data, "cpu")
            moved = distance(expected, start)
            there = network.to(chosen.device)
            ruled = batched_forward(there, shape).strategy
            for strategy in STRATEGIES:
                if strategy == "stacked" and name != "mlp":
                    continue
                forward = batched_forward(there, shape, strategy=strategy)
                faster, found = trained(forward, start, data, chosen.device)
                mark = "*" if strategy == ruled else " "
                print(
                    f"{kind:9} {name:11} {strategy:8}{mark} {seconds:12.2f} {faster:10.2f} "
                    f"{seconds / faster:7.2f} {distance(found, expected) / moved:12.1e}"
                )
    print("* the strategy of the rule on this device")


if __name__ == "__main__":
    main()
