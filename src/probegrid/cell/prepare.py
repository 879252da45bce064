"""What a cell is, before a weight is read: its examples, its prompts or passages, its layers, its key.

``prepare`` refuses whatever cannot work. A run, a sweep's check and ``action=plan`` call it alike, so that what one
refuses all refuse, with the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from probegrid.cell.cell import Cell, Model, Statements
from probegrid.cell.examples import Divided, check_both_classes, examples_of_statements
from probegrid.cell.grade import Grader
from probegrid.cell.identity import cell_key
from probegrid.cell.judge import judge_of
from probegrid.cell.lookup import Lookup
from probegrid.cell.options import options_to_read
from probegrid.cell.precision import on_its_cards
from probegrid.data.example import QuestionSet, StatementSet
from probegrid.data.source import PathNotGiven
from probegrid.disk import refuse_no_folder
from probegrid.errors import CheckpointError, ConfigError, DataError
from probegrid.models.as_stored import as_stored
from probegrid.models.checkpoint import Checkpoint
from probegrid.probes import ITSELF, Kind, Needs, Probe, TrainedProbe, resolve_layers
from probegrid.readings.asks import check_choices, draw_worked
from probegrid.readings.prompts import Prompt, build_prompts, check_lengths, choose_shots, sayer
from probegrid.readings.rendering import notes_on, notes_on_turns
from probegrid.readings.spans import (
    ANSWER_POSITIONS,
    STATEMENT_POSITIONS,
    Passage,
    Position,
    check_position,
    statement_passages,
)
from probegrid.readings.templates import ChatTemplate
from probegrid.schema import CellSpec, Config

if TYPE_CHECKING:
    from probegrid.data.example import Question
    from probegrid.hardware.cards import Gpu


def prepare(spec: CellSpec, lookup: Lookup | None = None, *, visible: Sequence[Gpu] | None = None) -> Cell:
    """Find everything a cell is made of; no weight is read.

    Args:
        spec: what was composed.
        lookup: what other cells have looked up already; None: nothing.
        visible: the GPUs of the machine it will run on, empty where they are not known; None: this machine's.

    Raises:
        UserError: the cell cannot work.
    """
    check_places(spec.config)
    lookup = lookup or Lookup()
    spec = on_its_cards(as_stored(spec), lookup.gpus if visible is None else lambda: visible)
    probe = probe_of(spec)
    examples = lookup.examples(spec.config.dataset)
    kind = Kind.questions if isinstance(examples, QuestionSet) else Kind.statements
    check_kind(spec, probe, kind)
    needs = probe.needs(kind)
    if isinstance(examples, QuestionSet):
        cell = _of_questions(spec, probe, needs, examples, lookup)
    else:
        cell = _of_statements(spec, probe, needs, examples, lookup)
    return replace(cell, key=cell_key(cell))


def check_places(config: Config) -> None:
    """Refuse folders of readings and results that are none.

    Raises:
        ConfigError: one is an address, a file, or a link to what is not there.
    """
    refuse_no_folder("store_dir", config.store_dir)
    refuse_no_folder("results_dir", config.results_dir)


def probe_of(spec: CellSpec) -> Probe:
    """The probe of a cell.

    Raises:
        ConfigError: its class is not a probe's.
    """
    if not isinstance(spec.config.probe, Probe):
        raise ConfigError(
            f"probe={spec.choices.probe} names no probe; let its YAML's defaults start from a probe's schema "
            "(`- /schema/probe/logistic@_here_`, as in conf/probe/logistic.yaml)."
        )
    return spec.config.probe


def check_kind(spec: CellSpec, probe: Probe, kind: Kind) -> None:
    """Refuse examples that the probe is none of.

    Raises:
        ConfigError: it scores questions and these are statements, or the other way round.
    """
    if kind in probe.kinds:
        return
    chosen = f"probe={spec.choices.probe}", f"dataset={spec.choices.dataset}"
    if kind is Kind.statements:
        raise ConfigError(
            f"{chosen[0]} scores answers to questions, but {chosen[1]} holds statements; choose a question-answer "
            "dataset (facts, squad, trivia_qa, jsonl), or a probe of statements (logistic, mass_mean, text_baseline)."
        )
    raise ConfigError(
        f"{chosen[0]} scores statements, but {chosen[1]} holds questions; choose a dataset of statements "
        "(facts_statements, statements, ntml)."
    )


def _of_questions(spec: CellSpec, probe: Probe, needs: Needs, data: QuestionSet, lookup: Lookup) -> Cell:
    Grader.of(data, spec.config.prompt)
    model = _model(spec.config, lookup)
    spec = as_stored(spec, model.checkpoint.config)
    config = spec.config
    layers = _layers(needs, Kind.questions, model.checkpoint)
    shots = choose_shots(data, config.prompt)
    template = ChatTemplate.of_questions(model.tokenizer, config.model)
    prompts = _prompts(config, data.questions, shots, template, model, lookup)
    worked = {}
    for name, ask in needs.asks.items():
        check_choices(ask, template, model.checkpoint, data.questions[0])
        drawn = draw_worked(name, ask, data, shots)
        worked[name] = _prompts(config, drawn, shots, template, model, lookup)
    return Cell(
        spec,
        probe,
        needs,
        replace(data, notes=(*data.notes, *_notes_on_asking(config, template, prompts, shots))),
        model,
        prompts=prompts,
        options=options_to_read(data, prompts, config.prompt, template, model.checkpoint.context),
        worked=worked,
        transfer=_transfer(spec, probe, needs, data, model, lookup),
        layers=layers,
        classifier=None if needs.classifier in (None, ITSELF) else lookup.classifier(needs.classifier),
        cross_encoder=None if needs.cross_encoder is None else lookup.cross_encoder(needs.cross_encoder),
        judge=judge_of(data, config, lookup),
    )


def _of_statements(spec: CellSpec, probe: Probe, needs: Needs, data: StatementSet, lookup: Lookup) -> Cell:
    divided = None
    if isinstance(probe, TrainedProbe):
        if not data.labelled:
            raise DataError(
                "these statements have no labels to learn from; set dataset.labelled=true or use action=score."
            )
        check_both_classes(data)
        divided = Divided.of(examples_of_statements(data), probe)
    if needs.hidden is None:
        return Cell(
            spec,
            probe,
            needs,
            data,
            statements=Statements(data),
            transfer=_transfer(spec, probe, needs, data, None, lookup),
            divided=divided,
        )
    model = _model(spec.config, lookup)
    spec = as_stored(spec, model.checkpoint.config)
    layers = _layers(needs, Kind.statements, model.checkpoint)
    position = Position(needs.hidden.position)
    data = _as_seen(data, model, spec.config)
    return Cell(
        spec,
        probe,
        needs,
        data,
        model,
        statements=Statements(data, passages_of(data, position, model, spec.config)),
        transfer=_transfer(spec, probe, needs, data, model, lookup),
        layers=layers,
        divided=divided,
    )


def _model(config: Config, lookup: Lookup) -> Model:
    checkpoint = lookup.checkpoint(config.model)
    return Model(checkpoint, lookup.tokenizer(config.model, checkpoint))


def _layers(needs: Needs, kind: Kind, checkpoint: Checkpoint) -> tuple[int, ...]:
    """The layers that are read; impossible ones and impossible positions are refused before hours of reading."""
    if needs.hidden is None:
        return ()
    is_asked = kind is Kind.questions
    allowed, of = (ANSWER_POSITIONS, "answers") if is_asked else (STATEMENT_POSITIONS, "statements")
    check_position(Position(needs.hidden.position), allowed, of)
    return resolve_layers(needs.hidden.layers, checkpoint.blocks)


def _prompts(
    config: Config,
    questions: tuple[Question, ...],
    shots: tuple[Question, ...],
    template: ChatTemplate,
    model: Model,
    lookup: Lookup,
) -> tuple[Prompt, ...]:
    """The prompts of some questions, made once for all cells that ask the same."""
    description = (
        f"{model.checkpoint.fingerprint} {template.source} {config.model.template_kwargs} {config.prompt} "
        f"{hash(questions)} {hash(shots)}"
    )
    prompts = lookup.prompts(description, lambda: build_prompts(questions, shots, config.prompt, template))
    if prompts:
        thinks = template.thought_before(prompts[0].text) is not None
        room = config.decoding.max_thinking_tokens if thinks else 0
        check_lengths(
            prompts, config.prompt, config.decoding.max_new_tokens, model.checkpoint.context, thought=room
        )
    _check_tokens((prompt.token_ids for prompt in prompts), model)
    return prompts


def _check_tokens(sequences: Iterable[Sequence[int]], model: Model) -> None:
    """Refuse tokens that the model has no embedding for.

    Raises:
        CheckpointError: the tokenizer has more than the model, and what is to be read holds one of them.
    """
    size, highest = model.checkpoint.vocabulary, max(map(max, filter(None, sequences)), default=0)
    if size is not None and highest >= size:
        token = model.tokenizer.convert_ids_to_tokens(highest)
        raise CheckpointError(
            f"the tokenizer of {model.checkpoint.name} makes {token!r} token {highest}, and the model has embeddings "
            f"of {size} tokens alone: tokens were added to the tokenizer and not to the model, or it is another "
            "model's; give the tokenizer that the weights were saved with."
        )


def _notes_on_asking(
    config: Config, template: ChatTemplate, prompts: tuple[Prompt, ...], shots: tuple[Question, ...]
) -> Iterator[str]:
    """What a result says of how its questions are asked."""
    yield from template.notes()
    if template.source is None:
        for name in ("system", "prefill"):
            if getattr(config.prompt, name):
                yield f"no chat template is used, so that prompt.{name} changes nothing"
    elif prompts:
        turns = sayer(config.prompt, shots)(prompts[0].question)
        yield from notes_on_turns(turns, config.prompt.prefill, template)
    if prompts and template.thought_before(prompts[0].text) is not None:
        yield (
            "the chat template begins a thought, which comes before each answer: "
            f"decoding.max_thinking_tokens={config.decoding.max_thinking_tokens}"
        )


def passages_of(data: StatementSet, position: Position, model: Model, config: Config) -> tuple[Passage, ...]:
    """Render, tokenize and locate: conversations use the tokenizer's own template wherever it has one."""
    template = ChatTemplate.of_conversations(model.tokenizer, config.model)
    context, bare = model.checkpoint.context, config.prompt.render
    passages = statement_passages(data, position, model.tokenizer, template, context=context, bare=bare)
    _check_tokens((passage.token_ids for passage in passages), model)
    return passages


def _as_seen(data: StatementSet, model: Model, config: Config) -> StatementSet:
    """The statements with what is to be known of how they are read.

    A system prompt that the model never saw leaks nothing, and a result must not say that it was kept.
    """
    template = ChatTemplate.of_conversations(model.tokenizer, config.model)
    notes, unseen = notes_on(data, template, config.prompt.render, model.tokenizer)
    leaks = () if unseen == len(data.conversations) else data.leaks
    return replace(data, notes=(*data.notes, *notes), leaks=leaks)


def _transfer(
    spec: CellSpec,
    probe: Probe,
    needs: Needs,
    own: QuestionSet | StatementSet,
    model: Model | None,
    lookup: Lookup,
) -> dict[str, Statements]:
    """The datasets of ``probe.test_on``, as the model reads them.

    Raises:
        ConfigError: the probe is none of activations, a set holds questions, or is the own one with other content.
        DataError: a set has no labels.
    """
    found: dict[str, Statements] = {}
    for name, dataset in spec.test_on.items():
        if needs.hidden is None or model is None or not probe.learns:
            raise ConfigError(
                "probe.test_on tests activation probes (logistic, mass_mean); drop it for this probe."
            )
        try:
            data = lookup.examples(dataset)
        except PathNotGiven as error:
            raise ConfigError(
                f"probe.test_on={name} has no data of its own; write its file behind it, "
                f"probe.test_on=[{name}:<file or folder>]."
            ) from error
        if not isinstance(data, StatementSet):
            raise ConfigError(f"probe.test_on={name} holds questions; name datasets of statements.")
        if not data.labelled:
            raise DataError(f"probe.test_on={name} has no labels to test on.")
        called = {name, Path(dataset.path or "").stem}
        if spec.choices.dataset in called and data.fingerprint != own.fingerprint:
            raise ConfigError(
                f"probe.test_on names another {spec.choices.dataset} (file or draw) than the dataset that is trained "
                "on, so that examples of both could be the same; drop it, or rename its file if nothing is shared."
            )
        position = Position(needs.hidden.position)
        check_position(position, STATEMENT_POSITIONS, "statements")
        found[name] = Statements(data, passages_of(data, position, model, spec.config))
    return found
