"""What the tests share beyond the doctests.

No operator may be nondeterministic, no state may leak.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _deterministic() -> None:
    """Bit-for-bit claims need it.

    It also fills ``torch.empty`` with NaN, which unmasks stray reads.
    """
    torch.use_deterministic_algorithms(True)


@pytest.fixture(autouse=True)
def _no_global_state_changed() -> Iterator[None]:
    """Whatever a test ran, torch's switches are as they were.

    A learner that flips one must not hide.
    """
    before = _switches()
    yield
    assert _switches() == before


def _switches() -> dict[str, object]:
    return {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "flash attention": torch.backends.cuda.flash_sdp_enabled(),
        "multithreaded backward": torch.autograd.is_multithreading_enabled(),
    }
