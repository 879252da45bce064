"""How torch's threads on a CPU wait, and how many there are: settings that count only before torch is imported.

Knows the environment variables of OpenMP and the processors that this process may use.

torch's loops end at a barrier of OpenMP (libgomp), where a thread that is early spins for milliseconds in the hope that
the others are nearly there. Where other processes use the cores they are not: the thread they wait for has no core, and
the spinning ones keep it from theirs. A decoding step has hundreds of such barriers.
"""

from __future__ import annotations

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables by which a user may have chosen already: of OpenMP, of GCC's library, of LLVM's."""
_THREADS = "OMP_NUM_THREADS"
_QUOTAS = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
"""Of control groups, versions 2 and 1, as a container sees its own."""


def share_cores(
    environment: MutableMapping[str, str] = os.environ, quotas: tuple[Path, Path] = _QUOTAS
) -> None:
    """Let threads sleep while they wait, and be no more than the processors this process has a share of.

    Called where a process begins, for itself and the processes it starts. What the user set stays.
    """
    if not any(name in environment for name in _WAITING):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    share = _share(quotas)
    if share is not None and share < _processors():
        environment.setdefault(_THREADS, str(share))


def _processors() -> int:
    """Processors this process may run on; OpenMP takes as many threads by itself."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _share(quotas: tuple[Path, Path]) -> int | None:
    """Processors' worth of time that a container's quota leaves, rounded up; None: no quota is known.

    Threads beyond it are stopped together until the quota's next period.
    """
    unified, legacy = quotas
    try:
        if unified.exists():
            quota, period = unified.read_text().split()
        else:
            quota, period = legacy.read_text(), legacy.with_name("cpu.cfs_period_us").read_text()
        return max(1, math.ceil(int(quota) / int(period))) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # none is mounted, or it is `max`
        return None
