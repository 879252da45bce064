"""The key of a cell: a hash of what its readings are of, its probe, its seeds, and of nothing else.

A value that is its field's default is left out, so that a field that is added later changes no key. ``RESULT_FORMAT``
is raised when the same readings would give another result.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from probegrid.data.example import QuestionSet, StatementSet
from probegrid.evaluation.rules import find_rule
from probegrid.readings.identity import describe_decoding, describe_device_map, describe_model, not_default
from probegrid.readings.options import digest_of_options
from probegrid.readings.store import key_of
from probegrid.schema import QuantizationMethod

if TYPE_CHECKING:
    from probegrid.cell.cell import Cell, Statements
    from probegrid.schema import Config

RESULT_FORMAT = 10
"""Raised whenever the same readings would give another result than before."""

OURS = "probegrid."


def cell_key(cell: Cell) -> str:
    """Name of a cell's folder."""
    config = cell.config
    return key_of(
        {
            "format": RESULT_FORMAT,
            "model": _model(cell),
            "examples": _examples(cell.examples),
            "reading": _reading(cell),
            "probe": _probe(cell),
            "transfer": {name: _statements(statements) for name, statements in cell.transfer.items()},
            "classifier": None if cell.classifier is None else cell.classifier.fingerprint,
            **({"cross_encoder": cell.cross_encoder.fingerprint} if cell.cross_encoder else {}),
            **({"judge": cell.judge.checkpoint.fingerprint} if cell.judge else {}),
            "seed": config.seed,
        }
    )


def source_of(owner: type) -> str | None:
    """SHA-256 of the source of the module that a class from outside the package stands in; None for our own."""
    if owner.__module__.startswith(OURS):
        return None
    source = inspect.getsource(sys.modules[owner.__module__])
    return hashlib.sha256(source.encode()).hexdigest()


def _model(cell: Cell) -> dict[str, Any]:
    """What the model makes of tokens; where none is read, what was named: each dimension counts."""
    config = cell.config
    if cell.model is not None:
        return describe_model(
            cell.model.checkpoint, config.model, config.quantization.method, config.device_map
        )
    return {
        "named": [config.model.path, config.model.revision],
        "quantization": _named(config.quantization.method),
        "device_map": describe_device_map(config.device_map),
    }


def _named(method: QuantizationMethod) -> str:
    """A method where no model is read: what a checkpoint that was never looked at is stored as counts as none."""
    return QuantizationMethod.none.value if method is QuantizationMethod.auto else str(method.value)


def _examples(examples: QuestionSet | StatementSet) -> list[Any]:
    """What is scored: ids, texts, groups, and what each is held against."""
    if isinstance(examples, QuestionSet):
        asked = [
            [
                each.id,
                each.text,
                each.references,
                each.group,
                *([each.options] if each.options else []),
                *([each.more_options] if each.more_options else []),
            ]
            for each in examples.questions
        ]
        told = [examples.rule_settings] if examples.rule_settings else []
        return [examples.rule, *told, source_of(type(find_rule(examples.rule))), *asked]
    return [
        [
            talk.id,
            statement.id,
            statement.text,
            statement.label,
            statement.source,
            *([talk.group] if talk.group else []),
        ]
        for talk in examples.conversations
        for statement in talk.statements
    ]


def _reading(cell: Cell) -> dict[str, Any]:
    """What the model is given, and how it is asked."""
    described: dict[str, Any] = {"layers": cell.layers}
    if cell.needs.hidden is not None:
        described["hidden"] = [cell.needs.hidden.of.value, cell.needs.hidden.position]
    if cell.prompts:
        described |= {
            "prompts": [prompt.digest for prompt in cell.prompts],
            "decoding": describe_decoding(cell.config.decoding, cell.config.prompt.stop),
            **_thinking(cell.config),
            **({"options": _options(cell)} if cell.options else {}),
            **({"answer_pattern": pattern} if (pattern := cell.config.prompt.answer_pattern) else {}),
            "worked": {
                name: [[prompt.digest, prompt.question.references] for prompt in prompts]
                for name, prompts in cell.worked.items()
            },
        }
    if cell.statements is not None:
        described["passages"] = [passage.digest for passage in cell.statements.passages]
    return described


def _thinking(config: Config) -> dict[str, Any]:
    """How long a thought may be and by what it is known, where either is no default."""
    longest = not_default(config.decoding).get("max_thinking_tokens")
    return {
        **({"max_thinking_tokens": longest} if longest else {}),
        **({"thinking": marks} if (marks := not_default(config.model.thinking)) else {}),
    }


def _options(cell: Cell) -> list[str]:
    return [
        digest_of_options(prompt.token_ids, options)
        for prompt, options in zip(cell.prompts, cell.options, strict=True)
    ]


def _statements(statements: Statements) -> list[Any]:
    passages: Sequence[str] = [passage.digest for passage in statements.passages]
    return [passages, _examples(statements.data)]


def _probe(cell: Cell) -> dict[str, Any]:
    """The probe by its declared name and what of it is not a default, its own source where it comes from outside."""
    owner = type(cell.probe)
    return {
        "name": owner.declared_name(),
        "fields": cell.probe.described(),
        "source": source_of(owner),
    }
