"""The plan of a cell: its model, its device map and the tokens it has, as the facts that ``planning.plan`` needs.

Knows prepared cells, what a config alone says of one, and this machine. Imports no torch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probegrid.cell.cell import Cell
from probegrid.cell.look import look_at
from probegrid.cell.precision import notes_on, on_its_cards
from probegrid.cell.prepare import check_kind, prepare, probe_of
from probegrid.errors import CheckpointError, NotAtHand, PlanError, UserError
from probegrid.hardware.devices import Hardware, described_gpu, hardware_for
from probegrid.hardware.machine import this_cpu, visible_gpus
from probegrid.models.as_stored import as_stored
from probegrid.models.checkpoint import Checkpoint, find_checkpoint
from probegrid.models.facts import facts_of, is_unpacked, loaded_by_transformers
from probegrid.models.libraries import lacking_libraries
from probegrid.planning.architecture import Parts, published_bytes
from probegrid.planning.families import mismatches
from probegrid.planning.placement import Placement
from probegrid.planning.plan import Plan, plan
from probegrid.planning.replicas import AUTO
from probegrid.planning.stored import StoredForm, published_form, stored_form
from probegrid.planning.workload import TOKEN_ESTIMATES, Workload, activation_workload, question_workload
from probegrid.probes import Kind, resolve_layers
from probegrid.readings.prompts import shared_prefix
from probegrid.readings.thinking import marks_of, open_in
from probegrid.schema import (
    Architecture,
    CellSpec,
    Config,
    DeviceMapConfig,
    Dtype,
    PlacementStrategy,
    QuantizationMethod,
)

if TYPE_CHECKING:
    from probegrid.cell.lookup import Lookup


@dataclass(frozen=True)
class PackPlan:
    """What the cells of a pack share, looked at and chosen before their model is loaded."""

    hardware: Hardware
    """With the memory that was free then."""
    placement: Placement
    """Holds the reading of every cell."""
    replicas: int
    """Copies of the model, by the seconds of all cells: one that was started serves each of them."""


def plan_cell(
    cell: Cell, *, device_map: DeviceMapConfig | None = None, pack: PackPlan | None = None
) -> Plan | None:
    """Plan a prepared cell by the tokens that its own texts have.

    Args:
        cell: what is read.
        device_map: the hardware where it will run, if that is not this machine's.
        pack: of the pack the cell belongs to, if any.

    Returns:
        None where no model is read.

    Raises:
        PlanError: the cell cannot work on this hardware; the message names what would.
        UnknownArchitecture: the architecture is neither given nor known.
        CheckpointError: the facts given are not those of the checkpoint, or this machine lacks a library that reads it.
    """
    if cell.model is None:
        return None
    found = _known(cell.config, cell.model.checkpoint)
    return _plan(cell.config, found, workload_of(cell), device_map or cell.config.device_map, pack)


def plan_spec(
    spec: CellSpec, lookup: Lookup, *, device_map: DeviceMapConfig | None = None
) -> tuple[Plan | None, tuple[str, ...]]:
    """Plan a cell that may not run here: by its files where they are at hand, else by what its config says of them.

    Args:
        spec: what was composed.
        lookup: one that fetches nothing from the hub.
        device_map: the hardware where it will run, if that is not this machine's.

    Returns:
        The plan, as of `plan_cell`, and what to know of it: a look at the examples where they are at hand.

    Raises:
        UserError: the cell cannot work, as far as that can be seen without what is not at hand.
    """
    elsewhere = device_map is not None and device_map != spec.config.device_map
    visible = () if elsewhere else lookup.gpus()
    try:
        cell = prepare(spec, lookup, visible=visible)
    except NotAtHand as missing:
        said = f"{str(missing).rstrip('.')}: planned by the architecture and by typical lengths of texts"
        spec = on_its_cards(as_stored(spec), lambda: visible)
        return _plan_by_facts(spec, device_map or spec.config.device_map), (said,)
    return plan_cell(cell, device_map=device_map), tuple(look_at(cell.examples, cell.config.prompt).lines())


def _plan_by_facts(spec: CellSpec, device_map: DeviceMapConfig) -> Plan:
    config, probe = spec.config, probe_of(spec)
    kind = Kind.questions if config.dataset.holds_questions else Kind.statements
    check_kind(spec, probe, kind)
    given, data = config.model.architecture, type(config.dataset).__module__.rpartition(".")[2]
    estimate = TOKEN_ESTIMATES.get(data)  # by what reads it: a dataset by its path is called by that
    known = _known(config, find_checkpoint(config.model)) if given is None else _as_published(config, given)
    architecture = known.architecture
    hidden = probe.needs(kind).hidden
    deepest = 0 if hidden is None else resolve_layers(hidden.layers, architecture.layers)[-1]
    if kind is Kind.questions:
        work = question_workload(config.dataset.num_samples, config.prompt, config.decoding, estimate)
    else:
        work = activation_workload(config.dataset.num_samples, deepest, estimate)
    found = _plan(config, known, work, device_map, None)
    if known.form is None and known.architecture.stored is not None:
        said = f"the files of {config.model.path} are published as {known.architecture.stored}, which quantization=auto"
        found = replace(found, notes=(*found.notes, f"{said} alone takes"))
    return found


def of_one_copy(device_map: DeviceMapConfig) -> DeviceMapConfig:
    """The hardware of a replica: every GPU that it sees is its own."""
    return replace(device_map, gpus=None, replicas="1")


def plan_pack(cells: Sequence[Cell], *, device_map: DeviceMapConfig | None = None) -> PackPlan | None:
    """Choose one placement for cells that share a model, a quantization and a device map.

    Args:
        cells: the pack.
        device_map: the hardware where they will run, if that is not as their configs say.

    Returns:
        None where one cell alone needs none, no placement holds them all, nothing is known of the architecture, or
        something else is wrong, which each cell will say: each has a placement of its own then.
    """
    reading = [cell for cell in cells if cell.model is not None]
    if len(reading) < 2:
        return None
    config, model = reading[0].config, reading[0].model
    assert model is not None
    try:
        device_map = device_map or config.device_map
        hardware = _hardware(device_map)
        found = _plan(
            config,
            _known(config, model.checkpoint),
            functools.reduce(Workload.beside, map(workload_of, reading)),
            device_map,
            None,
            hardware=hardware,
        )
    except UserError:
        return None
    return PackPlan(hardware, found.placement, found.replicas)


def _plan(
    config: Config,
    known: _Known,
    workload: Workload,
    device_map: DeviceMapConfig,
    pack: PackPlan | None,
    *,
    hardware: Hardware | None = None,
) -> Plan:
    if known.is_whole:
        workload = replace(workload, deepest_layer=None)
    lacking = lacking_libraries(known.form)
    if lacking is not None and not _is_described(device_map):
        raise CheckpointError(f"{config.model.path} {lacking}.")
    hardware = pack.hardware if pack else hardware or _hardware(device_map)
    follows_pack = pack is not None and device_map.replicas == AUTO
    unpacked = known.form if known.form is not None and is_unpacked(known.form, hardware) else None
    how = None if unpacked is None else _unpacking(unpacked, config.model.dtype)
    try:
        found = plan(
            known.architecture,
            dtype=config.model.dtype,
            quantization=config.quantization.method,
            device_map=replace(device_map, replicas="1") if follows_pack else device_map,
            hardware=hardware,
            workload=workload,
            placement=pack.placement if pack else None,
            form=known.form,
            stored=None if unpacked else known.stored,
            streams=not known.is_whole,
        )
    except PlanError as error:
        if how is None:
            raise
        raise PlanError(f"{error} It is {how}.") from error
    notes = [
        *_left_aside(device_map),
        *_assumed(device_map, hardware, found),
        *notes_on([hardware.gpus[index] for index in found.placement.gpus], config.model.dtype),
        *([] if how is None else [how]),
        *([] if lacking is None else [f"the checkpoint {lacking}"]),
    ]
    found = replace(found, notes=(*found.notes, *notes))
    if unpacked and known.stored is not None:
        fetched = known.stored.total(found.blocks)
        found = replace(found, download_bytes=fetched, disk_bytes=fetched)
    return found.in_copies(pack.replicas) if pack and follows_pack else found


_MOST_GPUS = {PlacementStrategy.cpu: 0, PlacementStrategy.single: 1}
"""GPUs that a strategy uses, however many are given."""


def _left_aside(device_map: DeviceMapConfig) -> list[str]:
    """That GPUs were asked for which the strategy does not use."""
    most = _MOST_GPUS.get(device_map.strategy)
    if most is None or device_map.gpus is None or device_map.gpus <= most:
        return []
    uses = "none" if most == 0 else "one"
    return [
        f"device_map={device_map.strategy.value} uses {uses} of the {device_map.gpus} GPUs that were asked for"
    ]


def _assumed(device_map: DeviceMapConfig, hardware: Hardware, found: Plan) -> list[str]:
    """Whose rates the hours are by, where only the memory of cards is said that are not here."""
    if not found.gpus or device_map.gpu is not None or hardware.gpus[0] != described_gpu(device_map):
        return []
    card = hardware.gpus[0]
    return [
        f"the hours are by the rates of a {card.name}, which stands for any card of {card.memory_gb:g} GB; "
        "device_map.gpu names another"
    ]


def _unpacking(form: StoredForm, dtype: Dtype) -> str:
    """That a checkpoint takes more memory than its files, and what would keep it packed."""
    kept = ", and stays packed on GPUs with the package kernels" if form.kind == "mxfp4" else ""
    return f"stored as {form.name}, which is unpacked to {dtype.value} here{kept}"


@dataclass(frozen=True)
class _Known:
    """What a plan takes from a checkpoint."""

    architecture: Architecture
    form: StoredForm | None = None
    """How it is stored, if it is quantized."""
    stored: Parts | None = None
    """Its bytes by part, where another library quantized it."""
    is_whole: bool = False
    """Whether it is loaded by transformers itself: all of it, and nothing streams."""


def _known(config: Config, checkpoint: Checkpoint) -> _Known:
    found = facts_of(checkpoint, use_safetensors=config.model.use_safetensors)
    given = config.model.architecture
    if given is not None and (differences := mismatches(given, found.architecture)):
        raise CheckpointError(
            f"model.architecture does not describe {checkpoint.name}: {'; '.join(differences)}. "
            "Correct it, or set model.architecture=null."
        )
    is_whole = loaded_by_transformers(checkpoint, config.model) is not None
    return _Known(found.architecture, stored_form(checkpoint.config), found.stored, is_whole)


def _as_published(config: Config, given: Architecture) -> _Known:
    """What a choice of ``model`` says of files that are not at hand; another quantization than theirs is of others."""
    form = published_form(given.stored) if config.quantization.method is QuantizationMethod.auto else None
    if form is None:
        return _Known(given)
    return _Known(given, form, published_bytes(given, config.model.dtype), is_whole=True)


def _hardware(device_map: DeviceMapConfig) -> Hardware:
    cpu = None if _is_described(device_map) else this_cpu()
    return hardware_for(device_map, visible=visible_gpus(), cpu=cpu)


def _is_described(device_map: DeviceMapConfig) -> bool:
    """Whether a device map says all of the hardware, which may be another machine's than this."""
    is_said = device_map.gpu is not None or device_map.gpu_memory_gb is not None
    return device_map.gpus is not None and is_said


def workload_of(cell: Cell) -> Workload:
    """What the cell reads: questions to answer, or conversations as deep as the probe asks."""
    config = cell.config
    if cell.statements is None:
        tokens = [prompt.token_ids for prompt in cell.prompts]
        prefix = shared_prefix(tokens)
        work = question_workload(len(tokens), config.prompt, config.decoding)
        if open_in(cell.prompts[0].text, marks_of(config.model.thinking)) is not None:
            work = replace(work, new_tokens=work.new_tokens + config.decoding.max_thinking_tokens)
        return work.counted([len(ids) - prefix for ids in tokens], prefix)
    read = [cell.statements, *cell.transfer.values()]
    lengths = [len(passage.token_ids) for statements in read for passage in statements.passages]
    return activation_workload(len(lengths), cell.layers[-1]).counted(lengths)
