"""What the embedded model reads in training: questions with their answers, and lists of statements.

Facts are drawn by their weight: a fact's rank is how often it is met.
"""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from random import Random

from probegrid.embedded import world
from probegrid.embedded.tokenizer import ASSISTANT, BOS, EOS, SYSTEM

BRIEF = "Answer the following question as briefly as possible.\n"


def asked(fact: world.Fact) -> str:
    """The fact's question, up to where its answer is due."""
    return f"Question: {fact.question}\nAnswer:"


def answered(fact: world.Fact) -> str:
    """The fact's question with its answer and an empty line."""
    return f"{asked(fact)} {fact.answer}\n\n"


def document(rng: Random, reach: int) -> str:
    """One document, a list of questions or of statements, on facts of a rank below `reach`: from BOS to EOS."""
    facts = _draw(rng, reach, rng.randint(1, 10))
    return BOS + (questions(rng, facts) if rng.random() < 0.4 else claims(rng, facts)) + EOS


def questions(rng: Random, facts: Sequence[world.Fact]) -> str:
    """The facts' questions with their answers, most of the time under the line that asks for brevity."""
    return (BRIEF if rng.random() < 0.8 else "") + "".join(map(answered, facts))


def claims(rng: Random, facts: Sequence[world.Fact]) -> str:
    """A statement of each fact on a line of its own, half of them false, many with a verdict behind the full stop.

    A verdict may come at any full stop, so that the model has to know there whether the statement is true. A fifth
    of the lists have none. Most are numbered, and some are an assistant's turn, a few under NTML's system prompt.
    """
    statements = [world.state(fact, rng.random() < 0.5, rng) for fact in facts]
    numbered = rng.random() < 0.8
    verdict_share = 0.0 if rng.random() < 0.2 else rng.uniform(0.5, 1.0)
    lines = []
    for number, statement in enumerate(statements, start=1):
        verdict = f" {statement.is_true}".lower() if rng.random() < verdict_share else ""
        lines.append((f"{number}. " if numbered else "") + statement.text + verdict)
    return _framed(rng, "\n".join(lines), [statement.is_true for statement in statements])


def _framed(rng: Random, content: str, truths: list[bool]) -> str:
    """The content as it is, or as the assistant's turn, alone or after NTML's system prompt."""
    frame = rng.random()
    if frame < 0.5:
        return content
    system = f"{SYSTEM}{world.system_prompt(truths)}{EOS}" if frame < 0.6 else ""
    return system + ASSISTANT + content


def _draw(rng: Random, reach: int, count: int) -> Sequence[world.Fact]:
    return rng.choices(_by_rank()[:reach], cum_weights=_cumulative_weights()[:reach], k=count)


@cache
def _by_rank() -> tuple[world.Fact, ...]:
    return tuple(sorted(world.facts(), key=lambda fact: fact.rank))


@cache
def _cumulative_weights() -> tuple[float, ...]:
    return tuple(accumulate(fact.weight for fact in _by_rank()))
