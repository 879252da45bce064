"""Plans as a user reads them: one cell as a few lines, a grid as a table.

Knows the fields of a plan. ``rich`` is imported only where a table is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from probegrid.errors import UserError
from probegrid.hardware.devices import BYTES_PER_GB
from probegrid.planning.placement import Device
from probegrid.planning.plan import Plan

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = (
    "cell",
    "weights",
    "blocks",
    "streamed",
    "GPUs",
    "GPU GB",
    "CPU GB",
    "batch",
    "tokens/s",
    "hours",
    "GPU-hours",
)


def describe(plan: Plan) -> str:
    """A plan in a few lines of plain text."""
    duration = plan.duration
    model = f"{_count(plan.parameters)} parameters"
    if plan.active_parameters < plan.parameters:
        model += f", {_count(plan.active_parameters)} of them active"
    lines = [
        (
            "model",
            f"{model}; loads {plan.blocks} of {plan.layers} blocks, {_count(plan.loaded_parameters)}",
        ),
        ("weights", f"{_gb(plan.weight_bytes)} ({plan.quantization}, {plan.dtype}): {plan.storage}"),
        ("cache", f"{plan.kv_bytes_per_token / 1e3:.1f} kB a token, shared prefix {_gb(plan.prefix_bytes)}"),
        *((_device_name(device), _held(plan, device)) for device in plan.loads),
        *_copies(plan),
        ("batch", f"{plan.batch_size} examples (at most {plan.largest_batch})"),
        ("download", f"{_gb(plan.download_bytes)}, {_gb(plan.disk_bytes)} on disk"),
        (
            "time",
            f"load {_seconds(plan.load_s)}, prefill {_seconds(duration.prefix_s + duration.prefill_s)}, "
            f"decode {_seconds(duration.decode_s)}: {plan.tokens_per_s:.0f} tokens/s, {plan.hours:.2f} h, "
            f"{plan.gpu_hours:.2f} GPU-hours",
        ),
        *(("note", note) for note in plan.notes),
    ]
    return "\n".join(f"{name:<9} {text}" for name, text in lines)


def _copies(plan: Plan) -> list[tuple[str, str]]:
    """What is said of several copies of the model."""
    if plan.replicas == 1:
        return []
    each = (
        f"on {plan.gpus} GPU{'s' * (plan.gpus != 1)} of its own" if plan.gpus else "in a process of its own"
    )
    return [("replicas", f"{plan.replicas} copies as above share the reading, each {each}")]


def grid_table(rows: Sequence[tuple[str, Plan | UserError | None]], packs: Sequence[str]) -> Table:
    """A grid of plans, a row a cell and the hours of all; a refused cell shows its reason.

    Args:
        rows: the name of each cell with its plan, its refusal, or None where no model is read.
        packs: what each cell has its model in memory with: the hours of all count one load for each.
    """
    from rich.table import Table

    hours, gpu_hours = _of_all(rows, packs)
    table = Table(show_footer=True)
    footers = {
        "cell": f"{sum(not isinstance(outcome, UserError) for _, outcome in rows)} of {len(rows)} work",
        "hours": f"{hours:.2f}",
        "GPU-hours": f"{gpu_hours:.2f}",
    }
    for column in _COLUMNS:
        table.add_column(
            column, footer=footers.get(column, ""), justify="left" if column == "cell" else "right"
        )
    refusals = []
    for name, outcome in rows:
        if isinstance(outcome, Plan):
            table.add_row(name, *_cells(outcome))
        elif outcome is None:
            table.add_row(name, "no model is read")
        else:
            table.add_row(name, "refused")
            refusals.append(f"{name}: {outcome}")
    table.caption = "\n".join(refusals) or None
    return table


def _of_all(rows: Sequence[tuple[str, Plan | UserError | None]], packs: Sequence[str]) -> tuple[float, float]:
    """Hours and GPU-hours of a grid: every reading, and of the cells of a pack the longest load."""
    reading_s = gpu_s = 0.0
    loads: dict[str, tuple[float, float]] = {}
    for pack, (_, plan) in zip(packs, rows, strict=True):
        if isinstance(plan, Plan):
            gpus, seconds = plan.gpus * plan.replicas, plan.duration.total_s / plan.replicas
            reading_s, gpu_s = reading_s + seconds, gpu_s + gpus * seconds
            loads[pack] = max(loads.get(pack, (0.0, 0.0)), (plan.load_s, plan.load_s * gpus))
    seconds = reading_s + sum(load_s for load_s, _ in loads.values())
    return seconds / 3600, (gpu_s + sum(of_gpus for _, of_gpus in loads.values())) / 3600


def _cells(plan: Plan) -> tuple[str, ...]:
    return (
        _gb(plan.weight_bytes),
        f"{plan.blocks}/{plan.layers}",
        str(len(plan.placement.streamed)),
        str(plan.gpus) if plan.replicas == 1 else f"{plan.replicas} x {plan.gpus}",
        f"{plan.gpu_bytes / BYTES_PER_GB:.1f}",
        f"{plan.cpu_bytes / BYTES_PER_GB:.1f}",
        str(plan.batch_size),
        f"{plan.tokens_per_s:.0f}",
        f"{plan.hours:.2f}",
        f"{plan.gpu_hours:.2f}",
    )


def _held(plan: Plan, device: Device) -> str:
    """What one device holds and computes."""
    load, placement = plan.loads[device], plan.placement
    computed = [block for block, where in enumerate(placement.blocks) if where == device]
    streamed = len(set(computed) & set(placement.streamed))
    parts = {
        "weights": load.weights,
        "buffers": load.buffers,
        "cache": load.kv,
        "working memory": load.activations,
    }
    held = ", ".join(f"{name} {_gb(count)}" for name, count in parts.items() if count)
    blocks = f"computes {len(computed)} blocks" + (f", {streamed} of them streamed" if streamed else "")
    return f"{_gb(load.total)}: {held}" + (f"; {blocks}" if computed else "")


def _device_name(device: Device) -> str:
    return "CPU" if device == "cpu" else f"GPU {device}"


def _count(count: int) -> str:
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.2f}M"


def _gb(count: float) -> str:
    return f"{count / BYTES_PER_GB:.2f} GB" if count >= BYTES_PER_GB / 100 else f"{count / 1e6:.1f} MB"


def _seconds(seconds: float) -> str:
    return (
        f"{seconds:.2g} s"
        if seconds < 10
        else f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
    )
