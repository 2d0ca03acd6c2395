"""The engine against one-network-at-a-time PyTorch, its strategies, and how its cost grows.

Run it as ``python benchmarks/sweep.py``. First comes the default grid of the digits; then four
networks of every convolving or attending model on images of MNIST's shape, with every strategy, of
which the one that the engine's rule chooses is marked (the pixels are random, which changes no
timing); last time and memory of the engine for 8, 64 and 512 networks and for half and all of the
images.

Both sides train with the same minibatches, attack steps, gradient penalty and optimiser; only
training is timed, not measuring. The engine trains all networks of a grid. The peer is a plain loop
over one `torch.nn.Module`: what it costs depends only on whether the network is attacked and
whether it is penalised, so on the default grid one network of each of the four kinds is timed and
counted as often as the grid has it. The peer gets the number of threads that serves it best. Every
timing is the least of several, taken in turns.

For the default grid the same floating-point operations are also timed as bare matrix products, at
the highest rate that this machine reached on products of the engine's shapes.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

import qwidgets as qw
from qwidgets.ensemble import STRATEGIES, batched_forward, stack_parameters
from qwidgets.training import Epoch, TrainingSettings, train

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwidgets.data import Dataset
    from qwidgets.ensemble import Strategy


def engine_epoch(
    data: Dataset,
    grid: list[tuple[float, float]],
    settings: TrainingSettings,
    model: str = "mlp",
    strategy: Strategy | None = None,
) -> float:
    """Seconds in which the engine trains all networks for an epoch, the second one."""
    network = qw.build_model(model, data)
    epsilon, strength = torch.tensor(grid, dtype=torch.float64).unbind(1)
    events = train(
        batched_forward(network, data.input_shape, strategy=strategy),
        stack_parameters([network] * len(grid)),
        data,
        epsilon,
        strength,
        settings,
    )
    ends = [time.perf_counter() for event in events if isinstance(event, Epoch)]
    return ends[-1] - ends[-2]


def attacked(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, epsilon: float, steps: int
) -> torch.Tensor:
    """PGD as it is written for one network."""
    moved = (x + epsilon * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    for _ in range(steps):
        moved.requires_grad_()
        (slope,) = torch.autograd.grad(functional.cross_entropy(model(moved), y), moved)
        with torch.no_grad():
            moved = moved + 2.5 * epsilon / steps * slope.sign()
            moved = moved.clamp(x - epsilon, x + epsilon).clamp(0, 1)
    return moved


def plain_epoch(
    data: Dataset, point: tuple[float, float], settings: TrainingSettings, model: str = "mlp"
) -> float:
    """Seconds in which PyTorch trains one network for an epoch, the second one."""
    epsilon, strength = point
    network = qw.build_model(model, data)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    for _ in range(2):
        start = time.perf_counter()
        for batch in torch.randperm(len(data.train_labels)).split(settings.batch_size):
            x, y = data.train_inputs[batch], data.train_labels[batch]
            if epsilon:
                x = attacked(network, x, y, epsilon, settings.attack_steps)
            x.requires_grad_(strength > 0)
            losses = functional.cross_entropy(network(x), y, reduction="none")
            objective = losses.mean()
            if strength:
                (slope,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
                objective = objective + strength * slope.square().flatten(1).sum(1).mean()
            optimizer.zero_grad()
            objective.backward()
            optimizer.step()
    return time.perf_counter() - start


def operations(data: Dataset, grid: list[tuple[float, float]], steps: int) -> float:
    """Floating-point operations of all matrix products of an epoch.

    In units of a forward pass: an attack step takes 2 (forward, back to the input), training 3 (the
    last layer's gradient goes to the weights too, the first layer's to them alone: counted in
    full), the penalty 4 more (back to the input, and the derivatives of that pass).
    """
    weights = sum(
        value.numel() for value in qw.build_model("mlp", data).parameters() if value.ndim > 1
    )
    passes = sum(2 * steps * bool(e) + 3 + 4 * bool(strength) for e, strength in grid)
    return 2.0 * weights * passes * len(data.train_labels)


def product_rate(networks: int, rows: int) -> float:
    """Floating-point operations per second in batched products of the hidden layer's shape."""
    x, weight = torch.randn(networks, rows, 128), torch.randn(networks, 128, 128)

    def one() -> float:
        start = time.perf_counter()
        torch.bmm(x, weight)
        return time.perf_counter() - start

    return 2.0 * x.numel() * 128 / min(one() for _ in range(300))


def settings_for(batch_size: int, learning_rate: float, attack_steps: int) -> TrainingSettings:
    """Two epochs at full radius, of which the second is timed."""
    return TrainingSettings(
        epochs=2,
        batch_size=batch_size,
        learning_rate=learning_rate,
        attack_steps=attack_steps,
        warm_up=0.0,
    )


def default_grid(repeats: int) -> None:
    """Print the engine, its peer and the arithmetic on the default grid of the digits."""
    data = qw.load_data("digits")
    units = qw.iterate_sweep(epochs=1)
    chosen = next(state.sweep for state in units if state.sweep is not None).settings
    units.close()
    grid = [(epsilon, value) for epsilon in chosen.epsilon for value in chosen.regularization]
    settings = settings_for(chosen.batch_size, chosen.learning_rate, chosen.attack_steps)
    kinds = Counter((bool(epsilon), bool(strength)) for epsilon, strength in grid)
    cores = torch.get_num_threads()

    rates, engine = [], []
    plain: dict[int, dict[tuple[bool, bool], list[float]]] = {
        threads: {kind: [] for kind in kinds} for threads in range(1, cores + 1)
    }
    for _ in range(repeats):
        torch.set_num_threads(cores)
        rates.append(product_rate(len(grid), chosen.batch_size))
        engine.append(engine_epoch(data, grid, settings))
        for threads, times in plain.items():
            torch.set_num_threads(threads)
            for kind, seconds in times.items():
                seconds.append(plain_epoch(data, (0.1 * kind[0], 0.1 * kind[1]), settings))
    torch.set_num_threads(cores)
    by_threads = {
        threads: sum(count * min(times[kind]) for kind, count in kinds.items())
        for threads, times in plain.items()
    }
    best = min(by_threads, key=by_threads.__getitem__)
    floor = operations(data, grid, chosen.attack_steps) / max(rates)

    print(f"digits, {len(grid)} networks, batch {chosen.batch_size}, PGD-{chosen.attack_steps}")
    print(f"engine                    {min(engine):8.2f} s an epoch ({cores} threads)")
    for threads, seconds in by_threads.items():
        print(f"PyTorch, one at a time    {seconds:8.2f} s an epoch ({threads} threads)")
    print(f"arithmetic alone          {floor:8.2f} s an epoch ({max(rates) / 1e9:.0f} Gflop/s)")
    print(f"engine is {by_threads[best] / min(engine):.1f} times faster (goal: 20)")
    print(f"engine takes {min(engine) / floor:.2f} times the arithmetic (goal: at most 2.5)")


def all_models(repeats: int) -> None:
    """Print every strategy of every model beside one network at a time, on images like MNIST's."""
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.rand((1300, 1, 28, 28), generator=generator), torch.arange(1300) % 10
    data = qw.Dataset.from_arrays(
        inputs[20:], labels[20:], test_inputs=inputs[:20], test_labels=labels[:20]
    )
    grid = [(epsilon, strength) for epsilon in (0.0, 0.1) for strength in (0.0, 0.1)]
    settings = settings_for(batch_size=64, learning_rate=1e-3, attack_steps=5)
    cores = torch.get_num_threads()
    print(f"\n28 x 28 images, {len(grid)} networks: times faster than one at a time")
    for model in ("conv", "resnet", "attention"):
        ruled = batched_forward(qw.build_model(model, data)).strategy
        strategies = [name for name in STRATEGIES if name != "stacked"]
        engine: dict[str, list[float]] = {name: [] for name in strategies}
        plain: dict[int, list[float]] = {threads: [] for threads in range(1, cores + 1)}
        for _ in range(repeats):
            for name in strategies:
                engine[name].append(engine_epoch(data, grid, settings, model, name))
            for threads, times in plain.items():
                torch.set_num_threads(threads)
                times.append(sum(plain_epoch(data, point, settings, model) for point in grid))
            torch.set_num_threads(cores)
        best = min(min(times) for times in plain.values())
        columns = [
            f"{name}{'*' if name == ruled else ''} {best / min(times):.2f}"
            for name, times in engine.items()
        ]
        print(f"{model:10}", *columns, f"  ({best:.2f} s an epoch one at a time)")
    print("* what the engine's rule chooses")


def compiled(repeats: int) -> None:
    """Print a minibatch of every strategy as it is and through `torch.compile`, on one thread."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((64, 1, 28, 28), generator=generator)
    data = qw.Dataset.from_arrays(images, torch.arange(64) % 10, value_range=(0, 1))
    y = torch.arange(64) % 10
    print("64 images of 28 x 28, one core: ms as it is, and compiled (s of the first time)")
    for model, networks in (("mlp", 64), ("conv", 1), ("resnet", 1)):
        network = qw.build_model(model, data)
        forward = batched_forward(network, data.input_shape)
        weights = stack_parameters([network] * networks)
        for what, penalty in (("attack step", None), ("training step", 0.0), ("penalised", 0.1)):
            times, gradients = [], []
            for evaluate in (forward, torch.compile(forward)):
                step = partial(gradient, evaluate, weights, images, y, penalty)
                torch.compiler.reset()
                start = cpu_seconds()
                try:
                    gradients.append(step())
                except RuntimeError as error:
                    times.append(str(error).partition("\n")[0])
                    continue
                first, seconds = cpu_seconds() - start, []
                for _ in range(10 * repeats):
                    start = time.process_time()
                    step()
                    seconds.append(time.process_time() - start)
                times.append(f"{1e3 * min(seconds):.2f} ({first:.1f})")
            if len(gradients) > 1:
                error = torch.linalg.vector_norm(gradients[1] - gradients[0])
                times.append(f"off by {error / torch.linalg.vector_norm(gradients[0]):.0e}")
            print(f"{forward.strategy:8}{model:7}{networks:3}  {what:14}", *times, sep="  ")


def cpu_seconds() -> float:
    """Return what this process has taken of the processor, with the compilers that it started."""
    return sum(os.times()[:4])


def gradient(
    evaluate: Callable[[dict[str, torch.Tensor], torch.Tensor], torch.Tensor],
    weights: dict[str, torch.Tensor],
    images: torch.Tensor,
    y: torch.Tensor,
    penalty: float | None,
) -> torch.Tensor:
    """Return the gradient with respect to the images, or (with a penalty) to the weights."""
    learning = penalty is not None
    leaves = {name: value.detach().requires_grad_(learning) for name, value in weights.items()}
    networks = len(next(iter(leaves.values())))
    x = images.repeat(networks, 1, 1, 1, 1).requires_grad_(not learning or penalty > 0)
    losses = functional.cross_entropy(
        evaluate(leaves, x).flatten(0, 1), y.repeat(networks), reduction="sum"
    )
    if not learning:
        return torch.autograd.grad(losses, x)[0]
    if penalty:
        (slope,) = torch.autograd.grad(losses, x, create_graph=True)
        losses = losses + penalty * slope.square().sum()
    found = torch.autograd.grad(losses, list(leaves.values()))
    return torch.cat([value.flatten() for value in found])


def growth() -> None:
    """Print time and memory of an epoch as networks and images grow."""
    data = qw.load_data("digits")
    half = data.subset(train=len(data.train_labels) // 2)
    settings = settings_for(batch_size=64, learning_rate=2e-3, attack_steps=5)
    print("\nnetworks   images   s an epoch   ms a network and 1000 images   peak memory in MiB")
    for networks in (8, 64, 512):
        grid = [(0.1, 0.1)] * networks
        for part in (half, data):
            seconds, images = engine_epoch(part, grid, settings), len(part.train_labels)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            each = 1e6 * seconds / networks / images
            print(f"{networks:8} {images:8} {seconds:12.2f} {each:30.1f} {peak:20.0f}")


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="timings of which the least counts")
    parser.add_argument("--compile", action="store_true", help="time torch.compile, nothing else")
    options = parser.parse_args()
    repeats = options.repeats
    if options.compile:
        compiled(repeats)
        return
    default_grid(repeats)
    all_models(repeats)
    growth()


if __name__ == "__main__":
    main()
