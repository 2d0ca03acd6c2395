"""Strength of our PGD beside foolbox's and torchattacks', on the same networks in the same run.

Run it as ``python benchmarks/attacks.py``. All attacks have the same radius, number of steps, step
size and value range, and start from a random point of the ball; they differ in their random numbers
alone, and in that ours follows the log odds against the label where the others follow the
cross-entropy. Counted are the test images of the digits that are misclassified after the last step,
clean errors included; in the last column those that our robust accuracy counts, for which any
iterate may break the image.
"""

from __future__ import annotations

import argparse
import math

import foolbox
import torch
import torchattacks
from torch import nn

import qwidgets as qw

TRAINING_RADII = (0.0, 0.05, 0.1, 0.2)
ATTACK_RADII = {"linf": (0.05, 0.1, 0.15), "l2": (0.4, 0.8, 1.2)}


def broken_by_qwidgets(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, norm: str, epsilon: float, steps: int
) -> torch.Tensor:
    """Which images our PGD breaks, (B,) bool."""
    return model(qw.pgd(model, x, y, epsilon, norm=norm, steps=steps)).argmax(1) != y


def broken_by_foolbox(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, norm: str, epsilon: float, steps: int
) -> torch.Tensor:
    """Which images foolbox's PGD breaks, (B,) bool."""
    attack = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    _, _, broken = attack(rel_stepsize=2.5 / steps, steps=steps)(wrapped, x, y, epsilons=epsilon)
    return broken


def broken_by_torchattacks(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, norm: str, epsilon: float, steps: int
) -> torch.Tensor:
    """Which images torchattacks' PGD breaks, (B,) bool."""
    attack = {"linf": torchattacks.PGD, "l2": torchattacks.PGDL2}[norm]
    found = attack(model, eps=epsilon, alpha=2.5 * epsilon / steps, steps=steps)(x, y)
    return model(found).argmax(1) != y


PEERS = {"foolbox": broken_by_foolbox, "torchattacks": broken_by_torchattacks}


def main() -> None:
    """Print what each attack breaks, in percent of the images, and how much ours is ahead."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10, help="steps of every attack")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of training")
    chosen = parser.parse_args()

    torch.manual_seed(0)  # the peers draw from the global generator
    data = qw.load_data("digits")
    x, y = data.test_inputs, data.test_labels
    sweep = qw.sweep(data, "mlp", TRAINING_RADII, [0.0], epochs=chosen.epochs, progress=False)
    models = [sweep.model(epsilon=radius, regularization=0.0) for radius in TRAINING_RADII]
    attacks = {"qwidgets": broken_by_qwidgets, **PEERS}
    least = dict.fromkeys(PEERS, math.inf)
    print(f"digits, {len(y)} test images, PGD-{chosen.steps}; broken images in percent")
    print("norm  radius  trained at", *(f"{name:>13}" for name in attacks), "  any iterate")
    for norm, radii in ATTACK_RADII.items():
        total = dict.fromkeys(attacks, 0.0)
        for epsilon in radii:
            for radius, model in zip(TRAINING_RADII, models, strict=True):
                broken = {
                    name: 100 * attack(model, x, y, norm, epsilon, chosen.steps).double().mean()
                    for name, attack in attacks.items()
                }
                (left,) = qw.robust_accuracy(model, x, y, [epsilon], norm=norm, steps=chosen.steps)
                columns = [
                    *(f"{share:13.2f}" for share in broken.values()),
                    f"{100 - 100 * left:13.2f}",
                ]
                print(f"{norm:4} {epsilon:7.2f} {radius:11.2f}", *columns)
                for name, share in broken.items():
                    total[name] += float(share) / (len(radii) * len(models))
        for peer in PEERS:
            ahead = total["qwidgets"] - total[peer]
            least[peer] = min(least[peer], ahead)
            print(f"{norm:4}: ours breaks {ahead:+.2f} points more than {peer}, on average")
    for peer, ahead in least.items():
        verdict = "holds" if ahead >= -0.5 else "FAILS"  # noqa: PLR2004
        print(f"at least as many as {peer} within 0.5 points: {verdict} ({ahead:+.2f})")


if __name__ == "__main__":
    main()
