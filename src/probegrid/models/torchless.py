"""Transformers as it is where torch is not installed: tokenizers and configs work, and are there in half the time.

A command that plans, or that hands cells to jobs, tokenizes and never computes. What transformers was once told of
torch it believes as long as the process lives: so only a process that is the command's own may do it.
"""

from __future__ import annotations

import os
import sys

_QUIET = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
_owners: list[str] = []


def own_this_process() -> None:
    """Say that nothing but the command ``probegrid`` runs in this process."""
    _owners.append("probegrid")


def import_without_torch() -> None:
    """Import transformers without torch, unless others run in this process, or one of the two is there already."""
    if not _owners or "torch" in sys.modules or "transformers" in sys.modules:
        return
    was_quiet = os.environ.get(_QUIET)
    os.environ[_QUIET] = "1"  # it would say that models are not available
    sys.modules["torch"] = None  # type: ignore[assignment]  # Python's own way to say that there is none
    try:
        from transformers.utils.import_utils import is_torch_available

        assert not is_torch_available()  # asked once, and remembered
    finally:
        del sys.modules["torch"]
        if was_quiet is None:
            del os.environ[_QUIET]
