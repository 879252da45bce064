"""Cells that share a model in memory: each prepared once, one placement, one tokenizer, one load.

A single cell is a pack of one. Knows prepared cells and the pool that holds the model between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from probegrid.cell.cell import Cell
from probegrid.cell.lookup import Lookup
from probegrid.cell.plan import PackPlan, of_one_copy, plan_cell, plan_pack
from probegrid.cell.prepare import prepare
from probegrid.cell.replicas import Replicas
from probegrid.errors import UnknownArchitecture, UserError
from probegrid.schema import CellSpec

if TYPE_CHECKING:
    from probegrid.models.pool import ModelPool
    from probegrid.planning.plan import Plan


class Pack:
    """The cells of a job; as a context manager, it frees their model at the end."""

    def __init__(
        self,
        specs: Sequence[CellSpec],
        lookup: Lookup | None = None,
        pool: ModelPool | None = None,
        *,
        is_replica: bool = False,
    ) -> None:
        """Begin with nothing prepared and nothing loaded.

        Args:
            specs: the cells.
            lookup: what was looked up already; None: nothing.
            pool: holds the model; None: a pool of the pack's own.
            is_replica: whether this process is one of several that read the pack's cells, with every GPU that it sees
                for its own.
        """
        self._specs = list(specs)
        self._lookup = lookup or Lookup()
        self._pool = pool
        self._cells: dict[int, Cell | UserError] = {}
        self._plan: PackPlan | None = None
        self._is_planned = False
        self._is_replica = is_replica
        self._replicas: Replicas | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._replicas is not None:
            self._replicas.close()
        if self._pool is not None:
            self._pool.release()

    @property
    def replicas(self) -> Replicas:
        """The processes that read along, none of them started before it is needed."""
        if self._replicas is None:
            self._replicas = Replicas(self._specs)
        return self._replicas

    def number(self, spec: CellSpec) -> int:
        """Which of the pack's cells a spec is."""
        for number, each in enumerate(self._specs):
            prepared = self._cells.get(number)
            if each is spec or (isinstance(prepared, Cell) and prepared.spec is spec):
                return number
        raise ValueError(f"{spec.name} is no cell of this pack")

    @property
    def pool(self) -> ModelPool:
        """Holds the model that is in memory, if any."""
        if self._pool is None:
            from probegrid.models.pool import ModelPool

            self._pool = ModelPool()
        return self._pool

    def prepare(self, spec: CellSpec) -> Cell:
        """The cell of one of the specs.

        Raises:
            UserError: it cannot work.
        """
        number = self.number(spec)
        if number not in self._cells:
            try:
                self._cells[number] = prepare(spec, self._lookup)
            except UserError as error:
                self._cells[number] = error
        found = self._cells[number]
        if isinstance(found, UserError):
            raise found
        return found

    def plan(self, cell: Cell) -> Plan | None:
        """The plan of one of the cells, in the placement that holds them all.

        Returns:
            None where no model is read, or nothing is known of the architecture: transformers places it.

        Raises:
            PlanError: the cell cannot work on this hardware.
        """
        device_map = of_one_copy(cell.config.device_map) if self._is_replica else None
        if not self._is_planned:
            self._plan, self._is_planned = plan_pack(self._possible(), device_map=device_map), True
        try:
            return plan_cell(cell, device_map=device_map, pack=self._plan)
        except UnknownArchitecture:
            return None

    def _possible(self) -> list[Cell]:
        """The cells that can work."""
        if len(self._specs) == 1:
            return []
        for spec in self._specs:
            try:
                self.prepare(spec)
            except UserError:  # said when its turn comes
                continue
        return [cell for cell in self._cells.values() if isinstance(cell, Cell)]
