"""Models that read a prompt both ways, each of its tokens with those behind it, and their answers as others do.

Their stock code is told which is which by ``token_type_ids``. Nothing of a prompt can be computed before all of it is
known, so that no two prompts share a prefix. Knows transformers' models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probegrid.models.kinds import reads_both_ways

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PROMPT, _ANSWER = 0, 1


def why_alone(model: PreTrainedModel) -> str | None:
    """Why prompts of a model are read one by one, whatever it may be; None where nothing of this kind is known."""
    family = model.config.model_type
    return f"{family} reads each prompt both ways" if reads_both_ways(family) else None


def token_types(model: PreTrainedModel, prompts: list[int], width: int) -> dict[str, Tensor]:
    """The argument that tells rows' prompts from what follows them: [rows, width] on the CPU; none where none is taken.

    Args:
        model: as it is called.
        prompts: tokens of each row's prompt; what follows sees no token behind it, nor does the prompt see it.
        width: tokens of each row.
    """
    if why_alone(model) is None:
        return {}
    rows = [[_PROMPT] * prompt + [_ANSWER] * (width - prompt) for prompt in prompts]
    return {"token_type_ids": torch.tensor(rows)}
