"""A model of a checkpoint's config with no weight in memory: every parameter on the meta device, its buffers on the CPU.

Of a model that sees images as well, it is the language model alone: a causal model of the text's own config where
transformers has one, else the whole model without what it sees with.

Knows transformers' tables of classes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from probegrid.errors import CheckpointError
from probegrid.models.blocks import decoder_blocks, keep_blocks
from probegrid.models.parts import Place, modules_at

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_INNER = "_probegrid_inner"
_TEXT = re.compile(r"^(?:model\.)?(?:language_model|text_model|llm)\.")
_ATTENDS_BOTH_WAYS = frozenset({"paligemma"})
"""Their text model sees a whole prompt at once, which a causal model of the same weights does not."""


def skeleton(config: PreTrainedConfig, blocks: int | None, dtype: torch.dtype) -> PreTrainedModel:
    """The causal model of a config, cut behind its first ``blocks`` blocks (None: whole).

    Raises:
        CheckpointError: transformers has no causal language model for it.
    """
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model = _causal(config, dtype)
    if blocks is not None and blocks < len(decoder_blocks(model)):
        keep_blocks(model, blocks)
        own = set(model.state_dict())
        tied: dict[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
        for target, source in list(tied.items()):
            if not {target, source} <= own:
                del tied[target]
    return model


def without_head(model: PreTrainedModel) -> PreTrainedModel:
    """The bare decoder of a causal model, its final norm the identity."""
    bare: Any = model.base_model
    blocks = decoder_blocks(model)
    for name, module in list(modules_at(bare, Place.tail)):
        if module.state_dict():  # a norm without weights may be used before the blocks too
            bare.set_submodule(name, nn.Identity())
    keep_blocks(bare, len(blocks))
    found: PreTrainedModel = bare
    return found


def is_inner(model: PreTrainedModel) -> bool:
    """Whether a model is the language model of a larger one, whose files call its tensors otherwise."""
    return bool(getattr(model, _INNER, False))


def text_name(name: str) -> str:
    """A tensor's name in the files of a larger model as the language model's own files would have it."""
    return _TEXT.sub("", name)


def has_text_inside(config: PreTrainedConfig) -> bool:
    """Whether a config is of a larger model with a language model inside."""
    return config.get_text_config(decoder=True) is not config


def _causal(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING as CAUSAL
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as SEEING

    text: Any = config.get_text_config(decoder=True)
    auto: Any = AutoModelForCausalLM
    if text is not config and type(text) in CAUSAL and config.model_type not in _ATTENDS_BOTH_WAYS:
        text.tie_word_embeddings = config.tie_word_embeddings
        model: PreTrainedModel = auto.from_config(text, dtype=dtype)
        setattr(model, _INNER, True)
        return model
    if type(config) in SEEING and text is not config:
        auto = AutoModelForImageTextToText
    elif type(config) not in CAUSAL:
        raise CheckpointError(
            f"transformers has no causal language model for model_type {config.model_type}; probegrid reads decoders "
            "that answer in text."
        )
    model = auto.from_config(config, dtype=dtype)
    if text is not config:
        _blindfold(model)
    return model


def _blindfold(model: PreTrainedModel) -> None:
    """Take away all of a larger model but its language model."""
    base: Any = model.base_model
    decoder = base.get_decoder()
    for name, child in list(base.named_children()):
        if all(module is not decoder for module in child.modules()):
            setattr(base, name, nn.Identity())
