"""What a launcher profile may say: one dataclass a scheduler, one docstring a field."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from probegrid.errors import ConfigError


class OnInterrupt(Enum):
    """What Ctrl-C (or a closed terminal) does to the jobs of a sweep that is waited for."""

    cancel = "cancel"
    detach = "detach"


@dataclass
class LauncherOptions:
    """What every launcher takes."""

    cells_per_job: int | None = None
    """Most cells in one job; null: a pack (the cells that share a model in memory) is one job."""
    skip_invalid: bool = False
    """Submit the cells that can work although others cannot; without it nothing is submitted then."""
    max_failures: int | None = None
    """Failed cells after which nothing more is started; null: every cell runs whatever the others do."""
    resubmit: int = 1
    """How often the launcher submits what is left of a job that died (killed, crashed, its node lost)."""
    detach: bool = False
    """Submit and return; ``action=status`` shows the sweep later."""
    on_interrupt: OnInterrupt = OnInterrupt.cancel
    """What Ctrl-C does: ``cancel`` the jobs, or ``detach`` and leave them running."""
    poll_s: float = 2.0
    """Seconds between two looks at the sweep while waiting."""

    def __post_init__(self) -> None:
        for name in ("cells_per_job", "max_failures"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"hydra.launcher.{name}={value}: give 1 or more, or null for no limit.")
        if self.resubmit < 0:
            raise ConfigError(f"hydra.launcher.resubmit={self.resubmit} is negative; 0 turns it off.")
        if self.poll_s <= 0:
            raise ConfigError(f"hydra.launcher.poll_s={self.poll_s} is not positive; 2 is the default.")


@dataclass
class LocalOptions(LauncherOptions):
    """The packs one after another on this machine, each in its own process."""


@dataclass
class SlurmOptions(LauncherOptions):
    """The packs as SLURM jobs; GPUs, CPUs, memory and minutes come from each pack's own model and plan."""

    poll_s: float = 5.0
    """Seconds between two looks at the sweep while waiting."""
    partition: str | None = None
    """Partition; null: the cluster's default."""
    account: str | None = None
    """Account that is charged."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features a node must have."""
    gpus_per_node: int | None = None
    """GPUs of a node, for planning where ``device_map.gpus`` is null: the submitting machine may have none."""
    gpu_memory_gb: float | None = None
    """Memory of each of them in GB, for planning where ``device_map.gpu_memory_gb`` is null."""
    max_parallel: int | None = None
    """Most jobs that run at once; null: as many as SLURM lets."""
    setup: list[str] = field(default_factory=list)
    """Shell lines before the job starts: ``module load cuda``, ``export HF_HOME=...``."""
    srun_args: list[str] = field(default_factory=list)
    """More arguments of ``srun``."""
    extra: dict[str, Any] = field(default_factory=dict)
    """More options of ``sbatch`` by their long names without dashes: ``{nodelist: n1, exclusive: true}``."""
    signal_delay_s: int = 120
    """Seconds before the time limit at which a job is told to requeue itself."""
    max_timeouts: int = 3
    """How often a job that reached its time limit is requeued."""
    python: str | None = None
    """Command that starts Python on a node; null: this very interpreter."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_parallel is not None and self.max_parallel < 1:
            raise ConfigError(
                f"hydra.launcher.max_parallel={self.max_parallel}: give 1 or more, or null for no limit."
            )
