"""Which checkpoints answer at all: decoders of text, alone or within an image-text model, and nothing else.

Knows the names that transformers gives to its classes, by which a config says what was trained. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probegrid.errors import CheckpointError

if TYPE_CHECKING:
    from probegrid.models.checkpoint import Checkpoint

_HEADS = {
    "ForSequenceClassification": "a classifier or a reward model",
    "ForTokenClassification": "a classifier of tokens",
    "ForMultipleChoice": "a classifier",
    "ForQuestionAnswering": "a finder of spans",
    "RewardModel": "a reward model",
    "ForMaskedLM": "an encoder",
    "ForReplacedToken": "an encoder",
    "ForSeq2SeqLM": "an encoder-decoder",
}
"""By how the name of the class ends that a checkpoint was saved from."""


_BOTH_WAYS = frozenset({"paligemma"})
"""Families whose prompts are a prefix that sees all of itself (PaliGemma, Beyer et al. 2024, arXiv 2407.07726)."""


def reads_both_ways(family: str) -> bool:
    """Whether a family's decoder sees, from each token of a prompt, those behind it too."""
    return family in _BOTH_WAYS


def only_decoders(checkpoint: Checkpoint, key: str = "model.path") -> Checkpoint:
    """The same checkpoint.

    Raises:
        CheckpointError: it is no causal language model.
    """
    kind = other_kind(checkpoint.config)
    if kind is None:
        return checkpoint
    named = ", ".join(checkpoint.config.get("architectures") or []) or checkpoint.config["model_type"]
    raise CheckpointError(
        f"{key}={checkpoint.name} is {kind} ({named}), which does not answer in words one after the other; give a "
        "causal language model, whose config.json names a class that ends in ForCausalLM or wraps one."
    )


def other_kind(config: Mapping[str, Any]) -> str | None:
    """What a model is that is no decoder, by its config; None for a decoder, and for code that it brings itself."""
    names = [str(name) for name in config.get("architectures") or []]
    for ending, kind in _HEADS.items():
        if names and all(name.endswith(ending) for name in names):
            return kind
    if config.get("is_encoder_decoder"):
        return "an encoder-decoder"
    if "auto_map" in config:
        return None
    family = str(config["model_type"])
    if family in _families("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES") and not config.get("is_decoder"):
        return "an encoder-decoder"
    is_causal = config.get("is_decoder") or any(
        name.endswith(("ForCausalLM", "LMHeadModel")) for name in names
    )
    if family in _families("MODEL_FOR_MASKED_LM_MAPPING_NAMES") and not is_causal:
        return "an encoder"
    return None


@cache
def _families(table: str) -> frozenset[str]:
    """The families of a table of transformers' automatic classes, as its source has them: the module wants torch."""
    import transformers

    source = Path(transformers.__file__).parent / "models" / "auto" / "modeling_auto.py"
    found = re.search(rf"^{table}\b.*?^\)", source.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return frozenset() if found is None else frozenset(re.findall(r"\(\s*\"([^\"]+)\",", found[0]))
