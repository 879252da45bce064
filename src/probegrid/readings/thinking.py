"""Thoughts before an answer: how models mark them, in what they are given and in what they say.

Knows the marks that are in use. A thought is begun by the prompt (R1, Qwen3-Thinking), or by the model itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from probegrid.schema import ThinkingConfig


@dataclass(frozen=True, slots=True)
class Marks:
    """What a thought stands between."""

    open: str
    """What it begins with."""
    close: str
    """What it ends with; the answer follows."""
    awaits: str = ""
    """What a prompt ends with after which nothing but ``open`` can come; empty: the prompt writes ``open`` itself."""
    empty: str = ""
    """What is written in place of a thought that is left out; empty: both marks with nothing between them."""

    def begin(self, said: str) -> bool:
        """Whether what a model said is a thought, or begins with one."""
        return said.lstrip().startswith(self.open)

    def are_open(self, prompt: str) -> bool:
        """Whether what comes after a prompt is a thought."""
        return prompt.rstrip().endswith(self.awaits or self.open)

    def closed(self, prompt: str) -> str:
        """A prompt whose thought is left out, so that the answer follows at once."""
        if self.empty:
            return prompt + self.empty
        if self.are_open(prompt):
            return f"{prompt.rstrip()}\n\n{self.close}\n\n"
        return f"{prompt}{self.open}\n\n{self.close}\n\n"

    def inside(self, said: str) -> str:
        """The thought itself."""
        return said.strip().removeprefix(self.open).removesuffix(self.close).strip()


_HARMONY_MARKS = re.compile(r"<\|channel\|>[^<]*<\|message\|>|<\|start\|>\w*|<\|\w+\|>")


@dataclass(frozen=True, slots=True)
class _Harmony(Marks):
    """The channels of gpt-oss: what is said in any but ``final`` is thought."""

    def inside(self, said: str) -> str:
        """The contents of all channels before the final one."""
        return "\n".join(filter(None, map(str.strip, _HARMONY_MARKS.split(said))))


HARMONY = _Harmony(
    "<|channel|>",
    "<|channel|>final<|message|>",
    awaits="<|start|>assistant",
    empty="<|channel|>final<|message|>",
)
KNOWN = (
    Marks("<think>", "</think>"),
    Marks("<thinking>", "</thinking>"),
    Marks("<thought>", "</thought>"),
    Marks("[THINK]", "[/THINK]"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("<|channel>thought", "<channel|>"),
    HARMONY,
)
"""DeepSeek's, Qwen's, GLM's and most others'; older ones; Mistral's; Seed's; Gemma 4's; gpt-oss's."""


def marks_of(given: ThinkingConfig) -> tuple[Marks, ...]:
    """The marks that are looked for: those that were given, else all that are known."""
    return KNOWN if given.open is None or given.close is None else (Marks(given.open, given.close),)


def open_in(prompt: str, marks: Sequence[Marks]) -> Marks | None:
    """The marks of the thought that a prompt has begun, if it has."""
    return next((each for each in marks if each.are_open(prompt)), None)


def begun_in(said: str, marks: Sequence[Marks]) -> Marks | None:
    """The marks of the thought that a model has begun, if it has."""
    return next((each for each in marks if each.begin(said)), None)
