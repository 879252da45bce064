"""A model of a checkpoint's config with no weight in memory: parameters on the meta device, buffers on the CPU.

Of a model that sees images as well, it is the language model alone: a causal model of the text's own config where
transformers has one, else the whole model without what it sees with.

Knows transformers' tables of classes.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from probegrid.errors import CheckpointError
from probegrid.models.blocks import decoder_blocks, keep_blocks
from probegrid.models.parts import Place, modules_at
from probegrid.planning.headers import TEXT

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_INNER = "_probegrid_inner"
_NOT_AS_ALONE = frozenset({"paligemma", "aya_vision", "cohere2_vision"})
"""Their language model says something else alone: PaliGemma's sees a whole prompt, Cohere's scales its logits."""
_CLASSIFIERS = frozenset({"shieldgemma2"})
_SEES_IN_EMBEDDING = "embed_tokens_extend"
"""Phi-4-multimodal's, called with text too, whose parts see and hear."""


def shape_of(config: PreTrainedConfig) -> PreTrainedModel:
    """The causal model of a config with nothing in memory, no buffer either: good for its names and shapes alone.

    Raises:
        CheckpointError: transformers has no causal language model for it.
    """
    try:
        with torch.device("meta"):
            return _causal(config, torch.bfloat16, alone=True)
    except (NotImplementedError, RuntimeError):  # some compute with their buffers while they are made
        return skeleton(config, None, torch.bfloat16)


def skeleton(
    config: PreTrainedConfig, blocks: int | None, dtype: torch.dtype, *, alone: bool = True
) -> PreTrainedModel:
    """The causal model of a config, cut behind its first ``blocks`` blocks (None: whole).

    Args:
        config: the whole model's; the model's own is a copy, since it says how the model attends.
        blocks: blocks to keep.
        dtype: of its parameters.
        alone: whether the language model of a larger one may be a causal model of its own.

    Raises:
        CheckpointError: transformers has no causal language model for it.
    """
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model = _causal(copy.deepcopy(config), dtype, alone=alone)
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
    return TEXT.sub("", name)


def has_text_inside(config: PreTrainedConfig) -> bool:
    """Whether a config is of a larger model with a language model inside."""
    return config.get_text_config(decoder=True) is not config


def _causal(config: PreTrainedConfig, dtype: torch.dtype, *, alone: bool) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING as CAUSAL
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as SEEING

    text: Any = config.get_text_config(decoder=True)
    auto: Any = AutoModelForCausalLM
    others = _CLASSIFIERS | _NOT_AS_ALONE
    if alone and text is not config and type(text) in CAUSAL and config.model_type not in others:
        if hasattr(config, "tie_word_embeddings"):
            text.tie_word_embeddings = config.tie_word_embeddings
        model: PreTrainedModel = auto.from_config(text, dtype=dtype)
        setattr(model, _INNER, True)
        return model
    if type(config) in SEEING and text is not config and config.model_type not in _CLASSIFIERS:
        auto = AutoModelForImageTextToText
    elif type(config) not in CAUSAL or config.model_type in _CLASSIFIERS:
        raise CheckpointError(
            f"transformers has no causal language model for model_type {config.model_type}; probegrid reads decoders "
            "that answer in text."
        )
    model = auto.from_config(config, dtype=dtype)
    if text is not config:
        _blindfold(model)
    elif (extended := getattr(model.base_model, _SEES_IN_EMBEDDING, None)) is not None:
        for name, _ in list(extended.named_children()):
            setattr(extended, name, nn.Identity())
    return model


def _blindfold(model: PreTrainedModel) -> None:
    """Take away all of a larger model but its language model."""
    base: Any = model.base_model
    decoder = base.get_decoder()
    for name, child in list(base.named_children()):
        if all(module is not decoder for module in child.modules()):
            setattr(base, name, nn.Identity())
