"""Hydra's launchers for grids: ``hydra/launcher=local`` (the default of ``-m``) and ``hydra/launcher=slurm``.

Hydra imports this module at every start and takes plugins only where they are defined: here is the door,
everything behind it is in ``probegrid.sweep`` and imported when a grid is launched. (Annotations are evaluated:
Hydra runs this module before it is in ``sys.modules``, where a dataclass would look up postponed ones.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

    def setup(
        self, *, hydra_context: "HydraContext", task_function: "TaskFunction", config: "DictConfig"
    ) -> None:
        """Stand in for the config loader, so that each cell is composed once and every mistake is listed."""
        from probegrid.sweep.grid import Composer

        self._config = config
        self._composer = Composer(hydra_context.config_loader)
        hydra_context.config_loader = self._composer  # type: ignore[assignment]  # delegates all else

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> "Sequence[JobReturn]":
        """Act on the whole grid; what a cell found is on disk, so that only its end is returned.

        Raises:
            ProbegridError: one sentence on all that went wrong.
        """
        from hydra.core.utils import JobReturn, JobStatus

        from probegrid.actions import act_on_grid

        cells = [self._composer.cell(self._config, overrides) for overrides in job_overrides]
        act_on_grid(cells, self.options_class(**self._values))
        return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED) for overrides in job_overrides]


class UsersGroupsFirst(SearchPathPlugin):
    """Lets a file of ``--config-dir`` stand for one of probegrid's own of the same name.

    Hydra puts that folder before the first provider called ``schema``, which by itself comes after the program's own.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put the config store, as a second ``schema``, before probegrid's groups; of other programs nothing."""
        if any(element.path == "pkg://probegrid.conf" for element in search_path.get_path()):
            search_path.prepend("schema", "structured://", anchor="main")


class LocalLauncher(GridLauncher):
    """The packs one after another on this machine."""

    options_class = LocalOptions


class SlurmLauncher(GridLauncher):
    """The packs as SLURM jobs."""

    options_class = SlurmOptions


@dataclass
class LocalProfile(LocalOptions):
    """``hydra/launcher=local``."""

    _target_: str = f"{__name__}.LocalLauncher"


@dataclass
class SlurmProfile(SlurmOptions):
    """``hydra/launcher=slurm``."""

    _target_: str = f"{__name__}.SlurmLauncher"


_slurm = OmegaConf.structured(SlurmProfile)
OmegaConf.set_struct(_slurm.extra, False)  # Hydra refuses new keys in a config: `extra` takes any
for _name, _node in (("local", LocalProfile), ("slurm", _slurm)):
    ConfigStore.instance().store(group="hydra/launcher", name=_name, node=_node, provider="probegrid")
