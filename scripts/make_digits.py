"""Writes src/fdfa/data/digits.safetensors from the copy of the digits that scikit-learn ships.

Run once, in a throw-away environment, since nothing else here needs scikit-learn:

    python3.11 -m venv ELSEWHERE && ELSEWHERE/bin/pip install scikit-learn safetensors
    ELSEWHERE/bin/python scripts/make_digits.py
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from sklearn.datasets import load_digits

TARGET = Path(__file__).resolve().parents[1] / "src" / "fdfa" / "data" / "digits.safetensors"


def main() -> None:
    """Writes the file and prints the checksum that tests/data/test_digits.py holds."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)  # (1797, 8, 8), pixels 0 ... 16
    labels = digits.target.astype(np.uint8)  # (1797,)
    if not np.array_equal(images, digits.images) or not np.array_equal(labels, digits.target):
        raise SystemExit("the digits do not fit into bytes: scikit-learn ships something new")
    content = save({"images": images, "labels": labels})
    TARGET.write_bytes(content)
    print(f"{TARGET.name}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
