"""The special tokens that a tokenizer sets around plain text: a BOS where its settings ask for one, and never an EOS.

Knows what loading loses: of a tokenizer whose class its files contradict (DeepSeek-V3), transformers drops
``add_bos_token``, and the model would read its texts without the token that it always met first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def set_as_configured(tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]) -> None:
    """Let a fast tokenizer set what ``tokenizer_config.json`` asks for; one that does already is left as it is.

    Args:
        tokenizer: as it was loaded.
        settings: of ``tokenizer_config.json``.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if not tokenizer.is_fast or not hasattr(tokenizer, "update_post_processor"):
        return
    ids = tokenizer("A")["input_ids"]
    begins, ends = ids[:1] == [bos], eos is not None and ids[-1:] == [eos]
    if ends or (settings.get("add_bos_token") is True and bos is not None and not begins):
        tokenizer._add_eos_token = False  # a prompt that ends a sequence is not gone on with
        tokenizer.add_bos_token = (
            begins or settings.get("add_bos_token") is True
        )  # writes the post-processor anew
