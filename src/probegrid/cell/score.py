"""``action=score``: a saved probe on statements it was not trained on, on the model it was trained on.

The folder of the probe may be somebody else's: nothing in it decides what code runs here.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from probegrid.cell.cell import Cell, Model, Statements
from probegrid.cell.lookup import Lookup
from probegrid.cell.plan import plan_cell
from probegrid.cell.prepare import check_places, passages_of, probe_of
from probegrid.cell.send import send_recorded
from probegrid.cell.transfer import Learned, Scored, score_statements, unseen
from probegrid.data.example import StatementSet
from probegrid.disk import refuse_unwritable
from probegrid.errors import CheckpointError, ConfigError, StoreError, TrackingError, UnknownArchitecture
from probegrid.evaluation.splits import TRAIN, VALIDATION
from probegrid.models.pool import ModelPool
from probegrid.probes import HiddenStates, Needs, Of
from probegrid.probes.saved import DESCRIPTION_FILE, TENSORS_FILE, SavedProbe
from probegrid.probes.training import Examples
from probegrid.progress import Progress
from probegrid.readings.identity import anywhere, describe_model
from probegrid.readings.session import ModelSession
from probegrid.readings.spans import STATEMENT_POSITIONS, Position
from probegrid.readings.store import key_of
from probegrid.report.example_rows import CellTables
from probegrid.report.examples_page import EXAMPLES_FILE, examples_page
from probegrid.schema import (
    CellSpec,
    Choices,
    Config,
    ModelConfig,
    PromptConfig,
    QuantizationConfig,
    StatementRendering,
    plain_values,
    to_plain,
    typed,
)
from probegrid.tracking import record
from probegrid.tracking.integrity import damage_of, said
from probegrid.tracking.provenance import provenance, versions
from probegrid.tracking.record import RESULT_FILE, CellRecord, Status

_TRUST = ("trust_remote_code", "use_safetensors")
"""Keys that decide whether code of a checkpoint runs: the command line alone says so."""
_OF_THE_PROBE = ("model", "quantization", "probe")
"""Groups that the cell of a saved probe has chosen."""


def score_cell(spec: CellSpec) -> Path:
    """Score ``dataset`` with the probe that the cell in ``probe.from`` saved, on the model it was trained on.

    Returns:
        The folder that was written: ``result.json``, ``scores.parquet`` and ``statements.parquet``.

    Raises:
        ConfigError: no saved probe is named, the folder holds none or asks for more trust than was
            typed, or the dataset holds no statements.
        StoreError: a file of the folder is damaged.
        CheckpointError: the model is not the one the probe was trained on any more.
    """
    started = datetime.now(UTC)
    check_places(spec.config)
    folder = _probe_folder(spec.config)
    refuse_unwritable(Path(spec.config.results_dir))
    saved = SavedProbe.from_files(
        {name: (folder / name).read_bytes() for name in (TENSORS_FILE, DESCRIPTION_FILE)}
    )
    spec = replace(
        spec, config=_on_its_model(spec.config, folder), choices=_as_it_was_chosen(spec.choices, folder)
    )
    with Progress() as progress, ModelPool() as pool:
        cell = _prepare(spec, saved, folder, Lookup(say=progress.say))
        assert cell.model is not None and cell.statements is not None
        try:
            plan = plan_cell(cell)
        except UnknownArchitecture:
            plan = None
        session = ModelSession(cell.config, cell.model.checkpoint, cell.model.tokenizer, plan, pool, progress)
        scored = score_statements(session, saved, cell.statements)
        metrics, notes = _numbers(scored, saved, cell.config.seed)
        if leaky := _leakage(folder, scored.examples):
            notes["leakage"] = leaky
        written = CellRecord(
            cell=key_of(
                {
                    "probe": folder.name,
                    **session.described,
                    "dataset": cell.examples.fingerprint,
                    "seed": cell.config.seed,
                }
            ),
            name=f"{folder.name}-on-{spec.choices.dataset}",
            status=Status.done,
            choices=asdict(spec.choices),
            provenance=provenance(started),
            metrics=metrics | session.metrics(),
            notes=notes,
            plan={} if plan is None else plan.as_dict(),
            versions=versions(),
        )
        tables = scored.tables()
        target = record.write(
            Path(cell.config.results_dir),
            written,
            to_plain(cell.config),
            tables=tables,
            files={EXAMPLES_FILE: examples_page(CellTables(written, tables)).encode()},
        )
        for text, score, probability in _shown(scored):
            progress.say(f"  {score:9.3f}  {probability:5.3f}  {text}")
        if leaky:
            progress.say(leaky)
        unsent = send_recorded(target, cell.config.tracking, progress)
        progress.say(f"scored {len(scored.scores)} statements (score, p(true), statement): {target}")
    if unsent is not None:
        raise TrackingError(
            f"the scores are in {target}, but MLflow does not have them; `probegrid action=sync` sends them."
        )
    return target


def _prepare(spec: CellSpec, saved: SavedProbe, folder: Path, lookup: Lookup) -> Cell:
    """The statements as the model reads them for the saved probe."""
    config = spec.config
    checkpoint = lookup.checkpoint(config.model)
    described = anywhere(
        describe_model(checkpoint, config.model, config.quantization.method, config.device_map)
    )
    if described != saved.model:
        raise CheckpointError(
            f"the probe in {folder} was trained on {dict(saved.model)}, but {config.model.path} is {described} now; "
            "score with that checkpoint, or train the probe again."
        )
    statements = lookup.examples(config.dataset)
    if not isinstance(statements, StatementSet):
        raise ConfigError(
            f"action=score scores statements, but dataset={spec.choices.dataset} holds questions."
        )
    if Position(saved.positions) not in STATEMENT_POSITIONS:
        raise ConfigError(
            f"the probe in {folder} reads the model's answers (probe.positions={saved.positions}), and action=score "
            "scores statements; give the folder of a probe that was trained on statements."
        )
    model = Model(checkpoint, lookup.tokenizer(config.model, checkpoint))
    passages = passages_of(statements, Position(saved.positions), model, config)
    return Cell(
        spec,
        probe_of(spec),
        Needs(hidden=HiddenStates(Of.statements, list(saved.reads), saved.positions)),
        statements,
        model,
        statements=Statements(statements, passages),
        layers=saved.reads,
    )


def _numbers(scored: Scored, saved: SavedProbe, seed: int) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics and notes of scored statements; of those without labels there is no more than their number."""
    summary = scored.summary(seed=seed)
    metrics = dict(summary.metrics) if summary else {"n": float(len(scored.scores))}
    metrics |= {"joined_layers": len(saved.joined)} if saved.joined else {"layer": saved.layer}
    metrics["threshold"] = saved.threshold  # by which the page calls them, as the tables do
    return metrics, dict(summary.notes) if summary else {}


def _leakage(folder: Path, examples: Examples) -> str:
    """How many of the statements the probe learned from, by the tables of its cell; empty: none, or it is not known."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ("conversation", "text", "source")
    try:
        scores = pq.read_table(folder / "scores.parquet", columns=["example_id", "split"])
        own = pq.read_table(folder / "statements.parquet", columns=["example_id", *columns])
        split = {row["example_id"]: row["split"] for row in scores.to_pylist()}
        rows = [row for row in own.to_pylist() if row["example_id"] in split]
    except (OSError, pa.ArrowException, KeyError):
        return ""  # somebody's folder: the probe alone, or tables of another kind
    learned = np.isin([split[row["example_id"]] for row in rows], (TRAIN, VALIDATION))
    if not learned.any():  # of several folds each tests some, and one of them was saved
        learned[:] = True
    conversations, texts, sources = ([row[name] for row in rows] for name in columns)
    return unseen(examples, Learned(conversations, texts, sources, learned))[1]


def _probe_folder(config: Config) -> Path:
    if config.probe.from_cell is None:
        raise ConfigError("action=score needs probe.from=<folder of a cell with a saved probe>.")
    folder = Path(config.probe.from_cell)
    missing = [name for name in (TENSORS_FILE, DESCRIPTION_FILE) if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"probe.from={folder} holds no {missing[0]}; give the folder of a done cell with probe=logistic or "
            "probe=mass_mean."
        )
    damage = [each for each in damage_of(folder) if each.file.name != RESULT_FILE or each.file.exists()]
    if damage:
        raise StoreError(f"{said(damage)}; run the cell of the saved probe again.")
    return folder


def _on_its_model(config: Config, folder: Path) -> Config:
    """The config with the model, the quantization and the rendering of statements of the cell that saved the probe.

    Raises:
        ConfigError: the folder asks for code to run that the command line does not allow, or holds what is no config.
    """
    stored = record.read_config(folder.parent, folder.name)
    try:
        model, quantization = dict(stored["model"]), dict(stored["quantization"])
        render = dict(stored["prompt"]).get("render", StatementRendering.plain.name)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{folder}/config.yaml names no model; give the folder of a done cell.") from error
    wanted = ModelConfig()
    for key in _TRUST:
        if model.get(key, getattr(wanted, key)) not in (getattr(config.model, key), getattr(wanted, key)):
            raise ConfigError(
                f"the probe in {folder} was trained with model.{key}={str(model[key]).lower()}, which lets the "
                f"checkpoint run code; if you trust it, type model.{key}={str(model[key]).lower()}."
            )
        model[key] = getattr(config.model, key)
    try:
        return replace(
            config,
            model=typed(ModelConfig, model),
            quantization=typed(QuantizationConfig, quantization),
            prompt=typed(PromptConfig, {**plain_values(config.prompt), "render": render}),
        )
    except ConfigError as error:
        raise ConfigError(f"{folder}/config.yaml is not of this version: {error}.") from error


def _as_it_was_chosen(choices: Choices, folder: Path) -> Choices:
    """The choices with the names of the saved probe and of its model: they score, whatever the defaults are."""
    known = record.read(folder.parent, folder.name)
    return replace(choices, **{name: known.choices[name] for name in _OF_THE_PROBE} if known else {})


def _shown(scored: Scored, most: int = 20) -> list[tuple[str, float, float]]:
    rows = np.arange(min(most, len(scored.scores)))
    return [
        (scored.examples.texts[row], float(scored.scores[row]), float(scored.probabilities[row]))
        for row in rows
    ]
