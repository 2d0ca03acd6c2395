"""Kills a sweep at random moments, goes on from its store each time, and compares the end.

Run it as ``python benchmarks/faults.py [kills]``. A small sweep runs in a process of its own, with
a store, and is killed (SIGKILL) after a random time, again and again; whenever it comes to its end,
its cube is compared with that of a sweep that nobody interrupted, and the next one begins. Printed
are how many kills there were, how many sweeps ended, how many of them with the very same bytes, and
how much of the training was done twice, as a ratio to what one run needs.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import qwidgets as qw

GRID = {
    "epsilon": [0, 0.1],
    "regularization": [0, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3],
    "epochs": 12,
    "train_size": 400,
    "test_size": 60,
    "probe_images": 1,
}
PROGRAM = f"""
import sys, qwidgets as qw
states = qw.iterate_sweep(**{GRID!r}, store=sys.argv[1])
next(states)
print("working", flush=True)
list(states)
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", nargs="?", type=int, default=20)
    kills = parser.parse_args().kills
    start = time.perf_counter()
    expected = qw.sweep(**GRID, progress=False)
    whole = time.perf_counter() - start
    chance = random.Random(0)  # noqa: S311 - moments, not secrets
    killed = ended = same = opened = 0
    working = 0.0
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        while killed < kills or ended == 0:
            # Three kills a sweep, or so: each epoch, and each moment of it, gets its share.
            patience = chance.uniform(0, 0.6 * whole) if killed < kills else None
            seconds, finished = run(store, patience)
            working += seconds
            killed += not finished
            opened += readable(store)
            if finished:
                ended += 1
                same += checksum(qw.open_sweep(store)) == checksum(expected)
                shutil.rmtree(store)
    print(
        f"killed {killed} times; the store could be opened after {opened} of {killed + ended} runs"
    )
    print(
        f"{ended} sweeps came to their end, {same} of them with the bytes of the uninterrupted one"
    )
    print(
        f"time at work: {working / ended / whole:.2f} times that of a run without store and kills"
    )
    if same != ended or opened != killed + ended:
        sys.exit(1)


def run(store: Path, patience: float | None) -> tuple[float, bool]:
    """Run the sweep, for so long at most; return how long it worked, and whether it ended."""
    command = [sys.executable, "-c", PROGRAM, str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603
        assert process.stdout is not None
        process.stdout.readline()
        start = time.perf_counter()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
        seconds = time.perf_counter() - start
    return seconds, process.returncode == 0


def readable(store: Path) -> bool:
    """Whether the store can be opened, or says that no epoch is finished yet."""
    try:
        qw.open_sweep(store)
    except ValueError as error:
        return "has none yet" in str(error)
    return True


def checksum(sweep: qw.Sweep) -> list[bytes]:
    """All bytes of a cube and of the networks."""
    cube = [sweep.dataset[name].values.tobytes() for name in sorted(sweep.dataset.variables)]
    chosen = sweep.settings
    corners = [
        {"epsilon": epsilon, "regularization": strength}
        for epsilon in chosen.epsilon
        for strength in chosen.regularization
    ]
    networks = [
        value.numpy().tobytes()
        for corner in corners
        for value in sweep.model(**corner).state_dict().values()
    ]
    return [str(sweep.dataset.attrs).encode(), *cube, *networks]


if __name__ == "__main__":
    main()
