"""Prints every figure that the project promises, measured here and now.

    python benchmarks/report.py                # all of it (needs MNIST; about eleven minutes)
    python benchmarks/report.py speed memory   # some parts
    python benchmarks/report.py diagnosis --threads 1
    FDFA_DATA=/path/to/data python benchmarks/report.py accuracy alignment

Exit status 1 if a promise is not kept.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

import accuracy
import cost
import diagnosis
import loop
import memory
import speed
from promises import Promise

PARTS: dict[str, Callable[[], Sequence[Promise]]] = {
    "accuracy": accuracy.measure_accuracy,
    "alignment": accuracy.measure_alignment,
    "speed": speed.measure,
    "cost": cost.measure,
    "cost-512": functools.partial(cost.measure, batch=512, rounds=8),
    "loop": loop.measure,
    "diagnosis": diagnosis.measure,
    "memory": memory.measure,
    "alexnet": memory.measure_alexnet,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the parts asked for and print one line a promise.

    Args:
        arguments: of the command line.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    given = parser.parse_args(arguments)
    parts = given.parts or list(PARTS)
    torch.set_num_threads(given.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, CPU")
    kept = True
    for part in parts:
        print(f"\n{part}")
        for promise in PARTS[part]():
            print(promise.line(), flush=True)
            kept &= promise.kept
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
