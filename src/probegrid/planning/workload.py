"""What a cell reads, as numbers of tokens: what a plan takes from the dataset, the prompt and the probe.

Knows how prompts are laid out and how long the usual datasets' texts are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from probegrid.schema import DecodingConfig, PromptConfig


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Typical lengths in a dataset, in tokens of a vocabulary of 32 to 150 thousand."""

    question: int = 25
    context: int = 0
    """The paragraph of a question, shown under ``prompt.use_context``."""
    answer: int = 6
    """The answer of a few-shot example."""
    conversation: int = 400
    """A conversation that an activation probe reads, all its turns."""


TOKEN_ESTIMATES = {
    "facts": TokenEstimate(question=12, answer=3),
    "facts_statements": TokenEstimate(conversation=16),
    "trivia_qa": TokenEstimate(question=24, answer=5),
    "squad": TokenEstimate(question=16, context=165, answer=6),
    "ntml": TokenEstimate(conversation=350),
    "statements": TokenEstimate(conversation=24),
}
"""Estimates of known datasets by the modules that read them; ``TokenEstimate()`` for the others."""

_INSTRUCTION_TOKENS = 12
_LABEL_TOKENS = 6
"""``Question:``, ``Answer:`` and the line breaks of one example."""
_CONTEXT_LABEL_TOKENS = 3


PASS_TOKENS = {"cuda": 16384, "cpu": 1024}
"""Most tokens in one forward pass, by the kind of device: enough to fill it, few enough to bound its working memory,
and on a CPU few enough for what a block holds of them to stay in its caches."""

_PASS_FLOPS, _MOST_TIMES = 2e12, 8
"""Operations of a block in a pass that take a GPU longer than launching its kernels does, some ms; and how many times
as many tokens a pass may have for that."""

_PASSES_A_STAGE, _FEWEST_PASS_TOKENS, _FEWEST_ABREAST = 4, 4096, 1024
"""Fewer tokens would not keep a GPU busy; fewer yet where passes share what a block costs."""


def longest_pass(device: str, block_flops: float) -> int:
    """Most tokens in one forward pass on a kind of device, through blocks of so many operations a token.

    Small blocks are computed sooner than their kernels are launched, unless a pass is longer.
    """
    if device != "cuda":
        return PASS_TOKENS[device]
    times = int(_PASS_FLOPS / (block_flops * PASS_TOKENS[device]))
    return PASS_TOKENS[device] * min(_MOST_TIMES, max(1, times))


def pass_tokens(tokens: int, most: int, *, stages: int, abreast: int, longest: int) -> int:
    """Tokens of a pass, of so many in a batch whose rows have ``longest`` at most.

    Through stages, one behind another: few enough that all of them soon have one. Abreast: as many passes as go side by
    side, or a multiple of them.
    """
    if stages > 1:
        return min(most, max(_FEWEST_PASS_TOKENS, tokens // (_PASSES_A_STAGE * stages)))
    if abreast > 1:
        passes = abreast * math.ceil(tokens / (abreast * most))
        return min(most, max(_FEWEST_ABREAST, math.ceil(tokens / passes) + longest))
    return most


def longest_of_passes(tokens: int, most: int, *, stages: int, abreast: int, longest: int) -> int:
    """Tokens that ``pass_tokens`` gives at most, of so many or fewer: a few less may go in longer passes."""
    if stages == 1 and abreast > 1 and tokens > abreast * most:
        return most
    return pass_tokens(tokens, most, stages=stages, abreast=abreast, longest=longest)


ROWS = {"cuda": 6144, "cpu": 64}
"""Most answers decoded together, samples counted: past that nothing gets faster."""
QUESTIONS = 512
"""Most questions in a batch: a killed run has to do one batch again. A batch of activations is a pass."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is read side by side."""

    size: int
    """Examples."""
    pass_tokens: int
    """Most tokens in one forward pass; a batch with more of them takes several. A row is never divided."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The tokens of a cell."""

    examples: int
    """Questions, or conversations."""
    prompt_tokens: int
    """Tokens of one example that no other shares, on average: they take the time."""
    prefix_tokens: int = 0
    """Tokens all prompts begin with: computed once, held once."""
    new_tokens: int = 0
    """Tokens generated for each answer; 0: activations are read, nothing is generated."""
    generations: int = 1
    """Answers to each question, decoded side by side."""
    deepest_layer: int | None = None
    """Blocks an activation probe needs (layer L is read after L blocks); None: all, and the head."""
    batch_size: int | None = None
    """Examples in one batch; None: the planner chooses."""
    longest_prompt: int | None = None
    """Tokens of the longest example, in place of ``prompt_tokens``: rows of a batch take the memory of the longest.
    None: all are alike."""

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest example that no other shares."""
        return self.longest_prompt or self.prompt_tokens

    def counted(self, lengths: Sequence[int], prefix_tokens: int = 0) -> Workload:
        """The same with the tokens that its texts have, of each example those after the shared prefix."""
        return replace(
            self,
            examples=len(lengths),
            prompt_tokens=math.ceil(sum(lengths) / len(lengths)),
            longest_prompt=max(lengths),
            prefix_tokens=prefix_tokens,
        )

    def beside(self, other: Workload) -> Workload:
        """What two readings of one model need at most, and read together."""
        depths = (self.deepest_layer, other.deepest_layer)
        sizes = [size for size in (self.batch_size, other.batch_size) if size is not None]
        return Workload(
            examples=self.examples + other.examples,
            prompt_tokens=max(self.prompt_tokens, other.prompt_tokens),
            prefix_tokens=max(self.prefix_tokens, other.prefix_tokens),
            new_tokens=max(self.new_tokens, other.new_tokens),
            generations=max(self.generations, other.generations),
            longest_prompt=max(self.longest_tokens, other.longest_tokens),
            deepest_layer=None if None in depths else max(depth for depth in depths if depth is not None),
            batch_size=max(sizes, default=None),
        )

    @property
    def generates(self) -> bool:
        """Whether keys and values must be kept for decoding."""
        return self.new_tokens > 0


def question_workload(
    examples: int, prompt: PromptConfig, decoding: DecodingConfig, estimate: TokenEstimate | None = None
) -> Workload:
    """The workload of an answer probe: few-shot examples are the shared prefix, each question is its own.

    Args:
        examples: questions asked.
        prompt: shots, context, instruction.
        decoding: answer length, samples beside the greedy answer, batch size.
        estimate: lengths of the dataset's texts; None: ``TokenEstimate()``.
    """
    tokens = estimate or TokenEstimate()
    block = tokens.question + _LABEL_TOKENS
    if prompt.use_context:
        block += tokens.context + _CONTEXT_LABEL_TOKENS
    if prompt.brief_always:
        block += _INSTRUCTION_TOKENS
    shots = prompt.num_few_shot * (block + tokens.answer)
    return Workload(
        examples=examples,
        prompt_tokens=block,
        prefix_tokens=shots + (0 if prompt.brief_always else _INSTRUCTION_TOKENS),
        new_tokens=decoding.max_new_tokens,
        generations=1 + (decoding.num_generations if decoding.do_sample else 0),
        batch_size=None if decoding.batch_size == "auto" else int(decoding.batch_size),
    )


def activation_workload(
    examples: int, deepest_layer: int, estimate: TokenEstimate | None = None, batch_size: int | None = None
) -> Workload:
    """The workload of an activation probe: one pass a conversation, through ``deepest_layer`` blocks."""
    tokens = estimate or TokenEstimate()
    return Workload(
        examples=examples,
        prompt_tokens=tokens.conversation,
        deepest_layer=deepest_layer,
        batch_size=batch_size,
    )
