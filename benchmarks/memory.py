"""Peak memory of `qw.uncertainty` in 784 dimensions, which must not depend on the samples.

Run it as ``python benchmarks/memory.py``; ``--samples 10000000`` is the full size and takes long.
Each domain gets a process of its own. Counted is the resident memory above what the process holds
when the package is loaded, so that the first use of everything counts too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import psutil
import torch

import qwidgets as qw

if TYPE_CHECKING:
    from qwidgets.domain import Domain

DIMENSION = 784
BALLS = 1000
DOMAINS = ("Box", "Gaussian", "Neighborhood")
MIB = 1 << 20


def edge(x: torch.Tensor) -> torch.Tensor:
    """Rise softly with the difference of two pixels: next to nothing to evaluate."""
    return torch.nn.functional.softplus(20 * (x[:, 0] - x[:, 1]))


def domain_of(name: str) -> Domain:
    """Build a domain of 784 dimensions; 1000 balls, as a class of images has."""
    centers = torch.rand(BALLS, DIMENSION, generator=torch.Generator().manual_seed(0))
    if name == "Box":
        return qw.Box(centers.new_zeros(DIMENSION), 1)
    if name == "Gaussian":
        return qw.Gaussian(centers[0], 0.5)
    return qw.Neighborhood(centers, 0.1, clip=(0, 1))


def peak_and_seconds(name: str, samples: int) -> tuple[float, float]:
    """Memory above the start, MiB, and the time."""
    domain = domain_of(name)
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    qw.uncertainty(edge, domain, samples=samples)
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return (peak - before) / MIB, seconds


def main() -> None:
    """Measure each domain and print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_000_000, help="evaluations of each domain")
    samples = parser.parse_args().samples
    print(f"{samples:,} samples at d = {DIMENSION}, peak above the start (goal: 1024 MiB)")
    with ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        for name in DOMAINS:
            peak, seconds = pool.submit(peak_and_seconds, name, samples).result()
            print(f"{name:16}{peak:8.0f} MiB{seconds:10.1f} s", flush=True)


if __name__ == "__main__":
    main()
