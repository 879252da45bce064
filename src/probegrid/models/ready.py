"""The last look before loading: does this machine have what the plan needs, and what exactly is to be loaded.

Knows the plan, the machine, what is in memory already, and the config's model groups; must not know datasets, probes
or results.
"""

from __future__ import annotations

from probegrid.models.checkpoint import Checkpoint
from probegrid.models.load import ModelRequest
from probegrid.models.plan import Plan
from probegrid.models.pool import ModelPool
from probegrid.models.preflight import disk_needs, preflight, this_machine
from probegrid.schema import Config, QuantizationMethod


def ready(
    config: Config, checkpoint: Checkpoint, plan: Plan | None, pool: ModelPool
) -> tuple[ModelRequest, list[str]]:
    """Check this machine against the plan, and say what to load and where.

    A model of other weights that the pool holds is released first. Where it holds this one, which an earlier cell
    of the pack found room for, memory is not asked for again.

    Returns:
        The request, and what the user should know although nothing is wrong.

    Raises:
        PlanError: something that the plan needs is not here; one sentence.
    """
    method = config.quantization.method
    keeps = (
        config.quantization.keep
        and method is not QuantizationMethod.none
        and "quantization_config" not in checkpoint.config
    )
    if plan is None:
        return ModelRequest(checkpoint, config.model, method, "auto"), []
    request = ModelRequest(
        checkpoint,
        config.model,
        method,
        plan.placement.device_map(),
        placement=plan.placement,
        keep_in=config.store_dir if keeps else None,
    )
    machine = None if pool.make_way(request) else this_machine(plan)
    needs = disk_needs(
        plan, checkpoint, store_dir=config.store_dir, results_dir=config.results_dir, keeps=keeps
    )
    return request, preflight(plan, machine, config.model.dtype, method, needs)
