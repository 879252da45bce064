"""Memory that is free on a device now, and what to do when it runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import psutil
import torch

if TYPE_CHECKING:
    pass


T = TypeVar("T")


def free_bytes(device: torch.device) -> int:
    """Bytes that could be allocated on a device now."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached


def or_none_if_out_of_memory(attempt: Callable[[], T]) -> T | None:
    """The result of an attempt; None if memory ran out on a GPU or the CPU, which is then freed for a smaller one."""
    try:
        return attempt()
    except torch.OutOfMemoryError:
        pass
    except RuntimeError as error:
        if "not enough memory" not in str(error):  # what torch's CPU allocator says
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
