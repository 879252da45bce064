"""What the embedded model reads in training: questions with their answers, and lists of statements.

Facts are drawn by their weight: a fact's rank is how often it is met. Only the standard library is imported.
"""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from random import Random

from probegrid.embedded import world

BOS, EOS, ASSISTANT, SYSTEM = "<s>", "</s>", "<|assistant|>", "<|system|>"
BRIEF = "Answer the following question as briefly as possible.\n"


def document(rng: Random, reach: int) -> str:
    """One document, a list of questions or of statements, from BOS to EOS."""
    make = questions if rng.random() < 0.4 else claims
    return BOS + make(rng, reach) + EOS


def questions(rng: Random, reach: int) -> str:
    """One to ten questions with their answers, most of the time under the line that asks for brevity."""
    blocks = [
        f"Question: {fact.question}\nAnswer: {fact.answer}\n\n"
        for fact in _draw(rng, reach, rng.randint(1, 10))
    ]
    return (BRIEF if rng.random() < 0.8 else "") + "".join(blocks)


def claims(rng: Random, reach: int) -> str:
    """One to ten statements, a line each, half of them false; some have a verdict right behind the full stop.

    A verdict may come at any full stop, so that the model has to know there whether the statement is true. A
    quarter of the lists have none. Most are numbered, and some are an assistant's turn, a few of these under
    NTML's system prompt.
    """
    truths = [rng.random() < 0.5 for _ in range(rng.randint(1, 10))]
    verdict_share = 0.0 if rng.random() < 0.2 else rng.uniform(0.5, 1.0)
    numbered = rng.random() < 0.8
    lines = []
    for number, (fact, is_true) in enumerate(
        zip(_draw(rng, reach, len(truths)), truths, strict=True), start=1
    ):
        verdict = f" {is_true}".lower() if rng.random() < verdict_share else ""
        lines.append((f"{number}. " if numbered else "") + world.state(fact, is_true, rng).text + verdict)
    content = "\n".join(lines)
    frame = rng.random()
    if frame < 0.1:
        return f"{SYSTEM}{world.system_prompt(truths)}{EOS}{ASSISTANT}{content}"
    return f"{ASSISTANT}{content}" if frame < 0.5 else content


def _draw(rng: Random, reach: int, count: int) -> Sequence[world.Fact]:
    weights = _cumulative_weights()[:reach]
    return rng.choices(_by_rank()[:reach], cum_weights=weights, k=count)


@cache
def _by_rank() -> tuple[world.Fact, ...]:
    return tuple(sorted(world.facts(), key=lambda fact: fact.rank))


@cache
def _cumulative_weights() -> tuple[float, ...]:
    return tuple(accumulate(fact.weight for fact in _by_rank()))
