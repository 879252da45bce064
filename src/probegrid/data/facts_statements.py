"""True and false statements about the embedded world, six to a conversation; needs no file and no network.

Knows how the world's statements become NTML's records, which ``probegrid.data.ntml`` reads like a file's.
"""

from __future__ import annotations

from dataclasses import dataclass

from probegrid.data.example import StatementSet
from probegrid.data.ntml import SystemPrompt, leaks, parse_conversation
from probegrid.data.sampling import draw
from probegrid.embedded import world
from probegrid.errors import ConfigError
from probegrid.schema import DatasetConfig

_STATEMENTS = 6  # of a conversation: three are true


@dataclass
class FactsStatementsConfig(DatasetConfig):
    """The embedded statements; one split and no path. The seed also chooses which of them are false."""

    num_samples: int = 248
    """Conversations of six statements; 248 are all there are."""
    system_prompt: SystemPrompt = SystemPrompt.drop
    """What becomes of the system prompt, which names the lies."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is not None:
            raise ConfigError(
                f"dataset=facts_statements is embedded and reads no path ({self.path}); "
                "your own file is dataset=statements."
            )


def load(config: FactsStatementsConfig) -> StatementSet:
    """Draw the conversations; statements that do not fill a last one are left out."""
    statements = world.statements(config.seed)
    starts = range(0, len(statements) - _STATEMENTS + 1, _STATEMENTS)
    records = [
        world.conversation(f"facts-{start}", statements[start : start + _STATEMENTS]) for start in starts
    ]
    pool = [parse_conversation(record, config.system_prompt, "the embedded world") for record in records]
    drawn, notes = draw(pool, config, "conversations", "the embedded world")
    return StatementSet(drawn, notes, leaks(drawn, config.system_prompt))
