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
        threading.Thread(target=_find_kernels, name="find kernels").start()
        threading.Thread(target=_multiply, args=(tuple(gpus),), name="warm up").start()


def _find_kernels() -> None:
    """By what compiled kernels are found is a digest of all of Triton's files, which takes 0.4 s."""
    with contextlib.suppress(ImportError, AttributeError):
        importlib.import_module("triton.runtime.cache").triton_key()


def _multiply(gpus: Sequence[int]) -> None:
    """The library of products takes 0.3 s to load."""
    with contextlib.suppress(RuntimeError):  # a full card: the model's own loading says so
        for gpu in gpus:
            some = torch.ones(16, 16, dtype=torch.float16, device=gpu)
            torch.mm(some, some)
