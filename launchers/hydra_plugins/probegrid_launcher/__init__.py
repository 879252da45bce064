"""Hydra's plugins for grids: ``hydra/launcher=local`` (the default of ``-m``), ``=slurm``, and ``hydra/sweeper=grid``.

Hydra imports this module at every start and takes plugins only where they are defined: here is the door,
everything behind it is in ``probegrid.sweep`` and imported when a grid is launched. (Annotations are evaluated:
Hydra runs this module before it is in ``sys.modules``, where a dataclass would look up postponed ones.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from probegrid.sweep.options import LauncherOptions, LocalOptions, SlurmOptions

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig


class GridLauncher(Launcher):
    """Hands the composed cells of a grid to ``probegrid.sweep``."""

    options_class: type[LauncherOptions]

    def __init__(self, **options: Any) -> None:
        self._values: dict[str, Any] = {
            name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for name, value in options.items()
        }

    @property
    def options(self) -> LauncherOptions:
        """What was typed for it, checked.

        Raises:
            ConfigError: a value that cannot be.
        """
        return self.options_class(**self._values)

    def setup(
        self, *, hydra_context: "HydraContext", task_function: "TaskFunction", config: "DictConfig"
    ) -> None:
        """Remember what composes the cells.

        Raises:
            ConfigError: it is another program's.
        """
        from probegrid.door.loader import CellLoader
        from probegrid.door.multirun_file import guard
        from probegrid.errors import ConfigError

        if not str(config.hydra.sweeper._target_).endswith(".GridSweeper"):
            guard(config)
        if not isinstance(hydra_context.config_loader, CellLoader):
            raise ConfigError("this launcher runs the grids of the command probegrid alone.")
        self._loader, self._config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> "Sequence[JobReturn]":
        """Act on the whole grid; what a cell found is on disk, so that only its end is returned.

        Raises:
            ProbegridError: one sentence on all that went wrong.
        """
        from hydra.core.utils import JobReturn, JobStatus

        from probegrid.actions import act_on_grid
        from probegrid.sweep.grid import compose_cells

        cells = compose_cells(self._loader, self._config, job_overrides)
        act_on_grid(cells, self.options)
        return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED) for overrides in job_overrides]


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper, which composes no cell before its launcher does and writes nothing.

    Hydra's composes every cell to see that it can, throws the configs away, stops at the first mistake, and
    leaves ``multirun.yaml`` behind whatever comes of the grid.
    """

    def __init__(self, params: "dict[str, str] | None" = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> "list[Sequence[JobReturn]]":
        """Launch the product of all values, those of a preset's ``hydra.sweeper.params`` included."""
        from probegrid.sweep.grid import product

        assert self.launcher is not None
        assert self.hydra_context is not None
        grid = product(self.hydra_context.config_loader, [*self._parse_config(), *arguments])
        return [self.launcher.launch(grid, initial_job_idx=0)]


class UsersGroupsFirst(SearchPathPlugin):
    """Lets a file of ``--config-dir`` stand for one of probegrid's own of the same name.

    Hydra puts that folder before the first provider called ``schema``, which by itself comes after the program's own.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put the config store, as a second ``schema``, before probegrid's groups; of other programs nothing."""
        if any(element.path == "pkg://probegrid.conf" for element in search_path.get_path()):
            search_path.prepend("schema", "structured://", anchor="main")


class LocalLauncher(GridLauncher):
    """The packs on this machine."""

    options_class = LocalOptions


class SlurmLauncher(GridLauncher):
    """The packs as SLURM jobs."""

    options_class = SlurmOptions


@dataclass
class LocalProfile(LocalOptions):
    """The packs on this machine, side by side where there are GPUs for them, each in a process of its own."""

    _target_: str = f"{__name__}.LocalLauncher"


@dataclass
class SlurmProfile(SlurmOptions):
    """The packs as SLURM jobs; what each asks for comes from its own model and plan."""

    _target_: str = f"{__name__}.SlurmLauncher"


@dataclass
class GridSweeperProfile:
    """``hydra/sweeper=grid``."""

    params: dict[str, str] | None = None
    _target_: str = f"{__name__}.GridSweeper"


_slurm = OmegaConf.structured(SlurmProfile)
OmegaConf.set_struct(_slurm.extra, False)  # Hydra refuses new keys in a config: `extra` takes any
for _group, _name, _profile in (
    ("hydra/launcher", "local", LocalProfile),
    ("hydra/launcher", "slurm", _slurm),
    ("hydra/sweeper", "grid", GridSweeperProfile),
):
    ConfigStore.instance().store(group=_group, name=_name, node=_profile, provider="probegrid")
