"""What determines a reading and a result, and nothing that does not: the store's and the results' keys are its hashes.

Knows the config's fields and which of them matter.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from probegrid.data.example import QuestionSet
from probegrid.models.checkpoint import Checkpoint
from probegrid.schema import Config, DecodingConfig, ModelConfig, QuantizationMethod


def describe_model(
    checkpoint: Checkpoint, model: ModelConfig, quantization: QuantizationMethod
) -> dict[str, Any]:
    """What determines what a model makes of a sequence of tokens."""
    return {
        "checkpoint": checkpoint.fingerprint,
        "dtype": model.dtype.value,
        "quantization": quantization.value,
    }


def describe_answers(config: Config, checkpoint: Checkpoint, data: QuestionSet) -> dict[str, Any]:
    """What determines a model's answers to a set of questions."""
    prompt = asdict(config.prompt)
    del prompt["max_new_tokens"]  # the default of decoding.max_new_tokens, which is what counts
    return {
        **describe_model(checkpoint, config.model, config.quantization.method),
        "blocks": "all",
        "chat_template": template_identity(config.model.chat_template),
        "dataset": data.fingerprint,
        "prompt": prompt,
        "decoding": _decoding(config.decoding),
    }


def template_identity(choice: str | None) -> str | None:
    """A chat template by its content, where it is a file."""
    if choice is not None and Path(choice).is_file():
        return hashlib.sha256(Path(choice).read_bytes()).hexdigest()
    return choice


def _decoding(decoding: DecodingConfig) -> dict[str, Any]:
    values: dict[str, Any] = {"max_new_tokens": decoding.max_new_tokens, "count_stop": decoding.count_stop}
    if decoding.do_sample:
        values |= {
            "temperature": decoding.temperature,
            "num_generations": decoding.num_generations,
            "seed": decoding.seed,
        }
    return values
