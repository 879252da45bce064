"""The last look before loading: does this machine have what the plan needs, and what exactly is to be loaded.

Knows the plan, the machine and the config's model groups; must not know datasets, probes or results.
"""

from __future__ import annotations

from probegrid.models.checkpoint import Checkpoint
from probegrid.models.load import ModelRequest
from probegrid.models.plan import Plan
from probegrid.models.preflight import disk_needs, preflight, this_machine
from probegrid.schema import Config, QuantizationMethod


def ready(config: Config, checkpoint: Checkpoint, plan: Plan | None) -> tuple[ModelRequest, list[str]]:
    """Check this machine against the plan, and say what to load and where.

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
    needs = disk_needs(
        plan, checkpoint, store_dir=config.store_dir, results_dir=config.results_dir, keeps=keeps
    )
    notes = preflight(plan, this_machine(plan), config.model.dtype, method, needs)
    request = ModelRequest(
        checkpoint,
        config.model,
        method,
        plan.placement.device_map(),
        placement=plan.placement,
        keep_in=config.store_dir if keeps else None,
    )
    return request, notes
