"""Which cells share a job, what it asks for, and what cells are called."""

from __future__ import annotations

import math
from dataclasses import replace

from probegrid.cell.lookup import Lookup
from probegrid.cell.plan import plan_spec
from probegrid.compose import compose_cell
from probegrid.schema import Resources
from probegrid.sweep.check import CheckedCell
from probegrid.sweep.grid import ComposedCell, cell_names
from probegrid.sweep.packs import pack

LARGE = ("model=llama70b", "quantization=nf4", "device_map=2xh100")


def checked(*overrides: str) -> CheckedCell:
    spec = compose_cell(overrides)
    return CheckedCell(ComposedCell(overrides, spec), plan_spec(spec, Lookup(fetch=False))[0], key="0")


def test_cells_of_one_model_are_one_job_for_the_time_of_all() -> None:
    cells = [checked(*LARGE, f"dataset={name}") for name in ("trivia_qa", "squad")]
    ((job,),) = pack(cells, [0, 1], None)
    plans = [cell.plan for cell in cells if cell.plan]
    assert job.cells == (0, 1)
    assert job.resources.gpus == max(plan.gpus for plan in plans)
    assert job.resources.timeout_min == 15 + math.ceil(120 * sum(plan.hours for plan in plans))


def test_values_and_not_names_make_a_pack() -> None:
    cells = [checked(*LARGE), checked(*LARGE, "model.dtype=float16"), checked(*LARGE, "seed=1")]
    assert [[job.cells for job in jobs] for jobs in pack(cells, [0, 1, 2], None)] == [[(0, 2)], [(1,)]]


def test_the_cell_that_needs_most_of_the_model_comes_first() -> None:
    probes = [("dataset=ntml", "probe=logistic", f"probe.layers=[{layer}]") for layer in (2, 22)]
    cells = [
        checked(*LARGE, *overrides) for overrides in (*probes, ("dataset=squad",), ("dataset=trivia_qa",))
    ]
    ((job,),) = pack(cells, range(4), None)
    assert job.cells == (2, 3, 1, 0)


def test_cells_per_job_splits_a_pack_and_given_resources_stand() -> None:
    given = Resources(gpus=1, mem_gb=7)
    cells = [checked(*LARGE, f"seed={seed}") for seed in range(5)]
    for cell in cells:
        assert cell.composed.spec is not None
        cell.composed.spec.config.model = replace(cell.composed.spec.config.model, resources=given)
    (jobs,) = pack(cells, range(5), 2)
    assert [job.cells for job in jobs] == [(0, 1), (2, 3), (4,)]
    assert {(job.resources.gpus, job.resources.mem_gb, job.resources.cpus) for job in jobs} == {(1, 7, 4)}


def test_names_tell_cells_apart() -> None:
    spec = compose_cell([])
    cells = [ComposedCell(("store_dir=s", f"seed={seed}"), spec=spec) for seed in (0, 1)]
    assert cell_names(cells) == ["tiny-none-facts-gnll seed=0", "tiny-none-facts-gnll seed=1"]


def test_jobs_that_share_cells_are_one_array() -> None:
    cells = [checked(*LARGE, f"seed={seed}") for seed in range(2)]
    (jobs,) = pack(cells, [0, 1], None, 3)
    assert [job.cells for job in jobs] == [(0, 1)] * 3


def test_a_job_sees_as_many_gpus_as_its_plan_needs_or_as_were_asked_for() -> None:
    for overrides, cards, takes_more in (
        (LARGE, 2, False),  # device_map.gpus=2
        (("device_map=cpu",), 0, False),
        (("device_map.gpus=4", "device_map.gpu_memory_gb=24"), 4, False),
        (("model.resources.gpus=3",), 3, False),
        ((), 0, False),  # no GPU is here
    ):
        ((job,),) = pack([checked(*overrides)], [0], None)
        assert (job.cards, job.takes_more) == (cards, takes_more), overrides


def test_copies_that_were_asked_for_by_number_are_asked_of_the_scheduler() -> None:
    alone, two = (
        pack([checked(*LARGE, f"device_map.replicas={number}")], [0], None)[0][0].resources
        for number in (1, 2)
    )
    assert (two.gpus, two.cpus, two.mem_gb) == (2, 8, 16)
    assert (alone.gpus, alone.cpus, alone.mem_gb) == (1, 4, 8)
