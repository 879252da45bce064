"""The plan of a composed cell: its config's groups turned into the facts that ``planning.plan`` needs.

Knows the config, the checkpoint's own facts and this machine.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from probegrid.data.example import QuestionSet, StatementSet
from probegrid.errors import CheckpointError, UserError
from probegrid.hardware.devices import Hardware, hardware_for
from probegrid.hardware.machine import this_cpu, visible_gpus
from probegrid.models.checkpoint import Checkpoint, find_checkpoint
from probegrid.models.load import load_tokenizer
from probegrid.planning.families import architecture_from_config, mismatches
from probegrid.planning.placement import Placement
from probegrid.planning.plan import Plan, plan
from probegrid.planning.workload import TOKEN_ESTIMATES, Workload, activation_workload, question_workload
from probegrid.probes import ActivationProbe, resolve_layers
from probegrid.schema import Architecture, CellSpec, Config


@dataclass(frozen=True)
class Lengths:
    """Tokens of a cell's texts."""

    own: tuple[int, ...]
    """Of each example, those after the shared prefix."""
    prefix: int = 0
    """That all prompts begin with."""


@dataclass(frozen=True)
class PackPlan:
    """What the cells of a pack share, looked at and chosen before their model is loaded."""

    hardware: Hardware
    """With the memory that was free then."""
    placement: Placement
    """Holds the reading of every cell."""


def plan_cell(
    spec: CellSpec,
    checkpoint: Checkpoint | None = None,
    *,
    deepest_layer: int | None = None,
    pack: PackPlan | None = None,
    lengths: Lengths | None = None,
) -> Plan:
    """Plan a cell from its config alone, or check it against its checkpoint where that is at hand.

    Args:
        spec: the cell.
        checkpoint: its checkpoint, where it was found.
        deepest_layer: layer that is read for a saved probe; None: what the cell's own probe reads.
        pack: of the pack the cell belongs to, if any.
        lengths: of its texts, where they were tokenized; None: typical ones of its dataset.

    Raises:
        PlanError: the cell cannot work on this hardware; the message names what would.
        UnknownArchitecture: the architecture is neither given nor known.
        CheckpointError: the facts given are not those of the checkpoint.
    """
    config = spec.config
    architecture = _architecture(config, checkpoint)
    workload = _workload(spec, architecture.layers, deepest_layer)
    return plan(
        architecture,
        dtype=config.model.dtype,
        quantization=config.quantization.method,
        device_map=config.device_map,
        hardware=pack.hardware if pack else _hardware(config),
        workload=workload if lengths is None else workload.counted(lengths.own, lengths.prefix),
        placement=pack.placement if pack else None,
        is_stored=checkpoint is not None and "quantization_config" in checkpoint.config,
    )


def plan_pack(cells: Sequence[CellSpec]) -> PackPlan | None:
    """Choose one placement for cells that share a model, a quantization and a device map.

    Returns:
        None where no placement holds them all, nothing is known of the architecture, or something else is wrong, which
        each cell will say: each has a placement of its own then.
    """
    config = cells[0].config
    try:
        hardware = _hardware(config)
        architecture = _architecture(config, find_checkpoint(config.model))
        works = [_workload(cell, architecture.layers, None) for cell in cells]
        found = plan(
            architecture,
            dtype=config.model.dtype,
            quantization=config.quantization.method,
            device_map=config.device_map,
            hardware=hardware,
            workload=functools.reduce(Workload.beside, works),
        )
    except UserError:
        return None
    return PackPlan(hardware, found.placement)


def _architecture(config: Config, checkpoint: Checkpoint | None) -> Architecture:
    facts = config.model.architecture
    if facts is None:
        found = checkpoint or find_checkpoint(config.model)
        return architecture_from_config(found.config)
    if checkpoint is not None and (differences := mismatches(facts, checkpoint.config)):
        raise CheckpointError(
            f"model.architecture does not describe {checkpoint.name}: {'; '.join(differences)}. "
            "Correct it, or set model.architecture=null."
        )
    return facts


def _hardware(config: Config) -> Hardware:
    device_map = config.device_map
    described = device_map.gpus is not None and device_map.gpu_memory_gb is not None
    return hardware_for(device_map, visible=visible_gpus(), cpu=None if described else this_cpu())


def _workload(spec: CellSpec, blocks: int, deepest_layer: int | None) -> Workload:
    """What the cell reads: questions to answer, or conversations as deep as the probe asks."""
    config, estimate = spec.config, TOKEN_ESTIMATES.get(spec.choices.dataset)
    probe = config.probe
    if deepest_layer is None:
        if config.dataset.holds_questions or not isinstance(probe, ActivationProbe):
            return question_workload(config.dataset.num_samples, config.prompt, config.decoding, estimate)
        deepest_layer = resolve_layers(probe.layers, blocks)[-1]
    return activation_workload(config.dataset.num_samples, deepest_layer, estimate)


def lengths_of(
    config: Config, checkpoint: Checkpoint, examples: QuestionSet | StatementSet
) -> Lengths | None:
    """Tokenize what a cell reads first: its prompts, or its conversations as far as they are read.

    Returns:
        None where nothing is read.

    Raises:
        UserError: the texts cannot be written for this model, as the reading itself would say.
    """
    if isinstance(examples, QuestionSet):
        from probegrid.readings.prompts import build_prompts, shared_prefix

        tokenizer = load_tokenizer(checkpoint, config.model)
        prompts = build_prompts(examples, config.prompt, tokenizer, config.model.chat_template)
        prefix = shared_prefix([prompt.token_ids for prompt in prompts])
        return Lengths(tuple(len(prompt.token_ids) - prefix for prompt in prompts), prefix)
    if isinstance(config.probe, ActivationProbe):
        from probegrid.readings.session import passages_of
        from probegrid.readings.spans import Position

        passages = passages_of(examples, Position(config.probe.positions), checkpoint, config.model)
        return Lengths(tuple(len(passage.token_ids) for passage in passages))
    return None
