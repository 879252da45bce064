"""What a GPU's first pass would wait for, done in a thread while weights are read.

Knows CUDA and Triton.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Sequence

import torch


def warm_up(gpus: Sequence[int]) -> None:
    """Begin, and return at once; what cannot be had is left to the first pass.

    Args:
        gpus: that will compute; none: there is nothing to do.
    """
    if gpus:
        threading.Thread(target=_warm_up, args=(tuple(gpus),), name="warm-up").start()


def _warm_up(gpus: Sequence[int]) -> None:
    with contextlib.suppress(RuntimeError):  # a full card: the model's own loading says so
        for gpu in gpus:  # the library of products takes 0.3 s to load
            some = torch.ones(16, 16, dtype=torch.float16, device=gpu)
            torch.mm(some, some)
    with contextlib.suppress(ImportError, AttributeError):
        # by which compiled kernels are found: a digest of all of Triton's files, 0.4 s
        importlib.import_module("triton.runtime.cache").triton_key()
