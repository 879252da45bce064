"""Why a way to read a model does not do for it, in words that say what the model lacks.

Knows models' code by what it leaves in a traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import FrameType

from torch import nn

log = logging.getLogger(__name__)

PACKED = "rows that are packed into one sequence"
PADDED = "rows of a padded batch"


class Unfit(Exception):
    """A way to read a model is not one for it; the message says why."""


def why_it_failed(error: BaseException, asked: str) -> str:
    """What a model's code does not do, from what it raised where it was asked to.

    Args:
        error: as it was caught; the log has its traceback (level DEBUG).
        asked: what the code was to take, as "rows of a padded batch".
    """
    log.debug("a model's code failed where it was to take %s", asked, exc_info=error)
    if isinstance(error, Unfit):
        return str(error)
    found = next(_modules(error), None)
    if found is None:
        return f"{type(error).__name__} where it was to take {asked}: {_first_line(error)}"
    module, frame = found
    name = type(module).__name__
    if frame.f_locals.get("attention_mask", error) is None and isinstance(error, TypeError | AttributeError):
        return f"its {name} needs an attention mask, which {asked} do not have"
    said = f": {_first_line(error)}" if "CUDA" in str(error) else ""  # the machine's, not the model's
    return f"its {name} does not take {asked}{said}"


def _modules(error: BaseException) -> Iterator[tuple[nn.Module, FrameType]]:
    """The parts of a model whose code was at work, the innermost first; torch's own left out."""
    frames, trace = list[FrameType](), error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module) and not type(module).__module__.startswith("torch."):
            yield module, frame


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:120]
