"""What a launcher profile may say: one dataclass a scheduler, one docstring a field."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from probegrid.errors import ConfigError
from probegrid.schema.ranges import MOST_GB, MOST_GPUS, check, number_field

_NO_LIMIT = "give 1 or more, or null for no limit"


class OnInterrupt(Enum):
    """What Ctrl-C (or a closed terminal) does to the jobs of a sweep that is waited for."""

    cancel = "cancel"
    detach = "detach"


@dataclass
class LauncherOptions:
    """What every launcher takes."""

    cells_per_job: int | None = number_field(None, least=1, most=10**6, hint=_NO_LIMIT)
    """Most cells in one job; null: a pack (the cells that share a model in memory) is one job."""
    jobs_per_cell: int = number_field(1, least=1, most=10_000)
    """Jobs that share each cell: they claim batches of its readings, and the last one evaluates it."""
    skip_invalid: bool = False
    """Submit the cells that can work although others cannot; without it nothing is submitted then."""
    max_failures: int | None = number_field(None, least=1, most=10**6, hint=_NO_LIMIT)
    """Failed cells after which nothing more is started; null: every cell runs whatever the others do."""
    resubmit: int = number_field(1, least=0, most=1000, hint="0 turns it off")
    """How often the launcher submits what is left of a job that died (killed, crashed, its node lost)."""
    detach: bool = False
    """Submit and return; ``action=status`` shows the sweep later."""
    on_interrupt: OnInterrupt = OnInterrupt.cancel
    """What Ctrl-C does: ``cancel`` the jobs, or ``detach`` and leave them running."""
    poll_s: float = number_field(2.0, above=0, least=0.01, most=3600, unit="seconds")
    """Seconds between two looks at the sweep while waiting."""

    def __post_init__(self) -> None:
        check(self, "hydra.launcher")


@dataclass
class LocalOptions(LauncherOptions):
    """The packs on this machine, each in its own process and on GPUs of its own, as many at once as there are for."""

    max_parallel: int | None = number_field(None, least=1, most=10**6, hint="give 1 or more, or null")
    """Most jobs that run at once; null: as many as there are GPUs for, and one on the CPU. A number holds for jobs
    on the CPU too."""


@dataclass
class SlurmOptions(LauncherOptions):
    """The packs as SLURM jobs; GPUs, CPUs, memory and minutes come from each pack's own model and plan."""

    poll_s: float = number_field(5.0, above=0, least=0.01, most=3600, unit="seconds")
    """Seconds between two looks at the sweep while waiting."""
    partition: str | None = None
    """Partition; null: the cluster's default."""
    account: str | None = None
    """Account that is charged."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features a node must have."""
    gpus_per_node: int | None = number_field(None, least=0, most=MOST_GPUS)
    """GPUs of a node, for planning where ``device_map.gpus`` is null: the submitting machine may have none."""
    gpu_memory_gb: float | None = number_field(None, above=0, most=MOST_GB, unit="GB")
    """Memory of each of them in GB, for planning where ``device_map.gpu_memory_gb`` is null."""
    max_parallel: int | None = number_field(None, least=1, most=10**6, hint=_NO_LIMIT)
    """Most jobs that run at once; null: as many as SLURM lets."""
    setup: list[str] = field(default_factory=list)
    """Lines of bash before the job starts: ``module load cuda``, ``export HF_HOME=...``; one that fails ends it."""
    srun_args: list[str] = field(default_factory=list)
    """More arguments of ``srun``."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Options of ``sbatch`` by their long names without dashes, which win over what probegrid would say:
    ``{nodelist: n1, exclusive: true, job_name: mine}``; null leaves one to the cluster: ``{mem: null, time: null}``."""
    signal_delay_s: int = number_field(120, least=0, most=65535, unit="seconds")
    """Seconds before the time limit at which a job is told to requeue itself."""
    max_timeouts: int = number_field(3, least=0, most=1000)
    """How often a job that reached its time limit is requeued."""
    replace_queued: bool = False
    """Submit jobs that still wait again where they were submitted with other options; without it they keep theirs."""
    python: str | None = None
    """Command that starts Python on a node; null: this very interpreter."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in plain(self).items():
            for text in _texts(value):
                refuse_control_characters(
                    f"hydra.launcher.{name}", text, allowed="\t" if name == "setup" else ""
                )
        self.extra = {str(name).replace("-", "_"): value for name, value in self.extra.items()}
        for name, value in self.extra.items():
            if name in _RESERVED:
                raise ConfigError(
                    f"hydra.launcher.extra.{name} is probegrid's own to say: {_RESERVED[name]}; leave it out."
                )
            if not isinstance(value, str | int | float | None):
                raise ConfigError(f"hydra.launcher.extra.{name}={value}: give text, a number, true or null.")

    def says(self, resource: str) -> bool:
        """Whether ``extra`` says itself how much of a resource a job asks for, or leaves it to the cluster."""
        return any(option in self.extra for option in SAID_BY[resource])


SAID_BY = {
    "gpus": ("gpus_per_node", "gpus", "gres", "gpus_per_task"),
    "cpus": ("cpus_per_task", "cpus_per_gpu"),
    "mem_gb": ("mem", "mem_per_cpu", "mem_per_gpu"),
    "timeout_min": ("time",),
}
"""By resource the options of sbatch for it, probegrid's own first; sbatch refuses most of them beside each other."""

JOB_OPTIONS = (
    "partition",
    "account",
    "qos",
    "constraint",
    "setup",
    "srun_args",
    "extra",
    "signal_delay_s",
    "max_timeouts",
    "python",
)
"""The options that a job carries from its submission on."""

_ONE_NODE = "a pack runs as one process on one node"
_RESERVED = {
    "array": "hydra.launcher.cells_per_job makes arrays",
    "chdir": "a job runs where the command was typed, for results_dir may be relative",
    "error": "logs are looked for below results_dir",
    "nodes": _ONE_NODE,
    "ntasks": _ONE_NODE,
    "ntasks_per_node": _ONE_NODE,
    "output": "logs are looked for below results_dir",
    "parsable": "it reads what sbatch prints",
    "signal": "hydra.launcher.signal_delay_s is for that",
    "test_only": "nothing would be submitted",
    "wait": "hydra.launcher.detach=false waits",
    "wrap": "a job's program is the worker",
}


def plain(options: LauncherOptions) -> dict[str, Any]:
    """The options as plain values, enums by their names; OmegaConf would read the ``${HOME%/}`` of a setup line."""
    values = {name: value for name, value in asdict(options).items() if not name.startswith("_")}
    return {name: value.name if isinstance(value, Enum) else value for name, value in values.items()}


def refuse_control_characters(name: str, text: str, allowed: str = "") -> None:
    """Refuse text that would not stay on its line of a batch script.

    Raises:
        ConfigError: it holds a line end or another control character.
    """
    for character in text:
        if unicodedata.category(character) in ("Cc", "Zl", "Zp") and character not in allowed:
            raise ConfigError(
                f"{name}={text!r} holds the control character {character!r}, which a batch script must not get; "
                "remove it (a list takes one line an item)."
            )


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, names of a mapping included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from (*_texts(name), *_texts(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
