"""How long the texts of a cell are in its model's tokens, so that its plan need not go by typical lengths.

Knows how questions and statements become token ids; must not know plans, models' weights or results.
"""

from __future__ import annotations

from probegrid.data.example import QuestionSet, StatementSet
from probegrid.models.checkpoint import Checkpoint
from probegrid.models.load import load_tokenizer
from probegrid.planning import Lengths
from probegrid.probes import ActivationProbe
from probegrid.schema import Config


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
        from probegrid.readings.spans import Position
        from probegrid.trained_cell import passages_of

        passages = passages_of(examples, Position(config.probe.positions), checkpoint, config.model)
        return Lengths(tuple(len(passage.token_ids) for passage in passages))
    return None
