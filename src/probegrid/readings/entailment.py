"""The reading *entailments*: how surely one text entails or contradicts another, each pair asked once.

Knows pairs of texts and the two who can be asked: a classifier, and the language model itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

from probegrid.errors import ConfigError
from probegrid.models.classifier import Classifier, Pair, Relation
from probegrid.readings.options import Continuations, OptionReading
from probegrid.readings.pairs import PairReading
from probegrid.readings.templates import ChatTemplate

WORDS = ("contradiction", "neutral", "entailment")
"""What a language model may say of two texts, in the order of a `Relation`."""


def entails(relation: Sequence[float]) -> bool:
    """Whether entailment is the likeliest of the three; not where another is as likely."""
    contradicts, neutral, entailed = relation
    return entailed > max(contradicts, neutral)


class Entailments(PairReading):
    """What a classifier for natural language inference says."""

    kind: ClassVar[str] = "entailments"

    def __call__(self, pairs: Sequence[Pair]) -> list[bool]:
        """Whether the first text of each pair entails the second: entailment is the likeliest class.

        Raises:
            StoreError: a full disk.
            RunError: one pair alone does not fit in memory.
        """
        return [entails(said) for said in self.said(pairs)]

    def relations(self, pairs: Sequence[Pair]) -> list[Relation]:
        """Probabilities that the first text contradicts the second, is neutral to it, entails it; raises likewise."""
        return [(said[0], said[1], said[2]) for said in self.said(pairs)]

    def say(self, classifier: Classifier, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """As `PairReading`."""
        return list(classifier.relations(pairs))


class OwnEntailments:
    """What the language model itself says, by the probabilities of three words after a prompt (wording ours)."""

    kind: ClassVar[str] = "entailments"

    def __init__(
        self,
        read: Callable[[Sequence[tuple[int, ...]], Sequence[Continuations]], OptionReading],
        template: ChatTemplate,
    ) -> None:
        """Begin.

        Args:
            read: reads the continuations of prompts (`ModelSession.options`).
            template: how a prompt is wrapped for the model.
        """
        self._read, self._template = read, template
        self._known: dict[Pair, Relation] = {}
        self.read_s = 0.0
        self.notes: list[str] = []

    def __call__(self, pairs: Sequence[Pair]) -> list[bool]:
        """As `Entailments`."""
        return [entails(said) for said in self.relations(pairs)]

    def relations(self, pairs: Sequence[Pair]) -> list[Relation]:
        """As `Entailments`: the words' probabilities, normalized over the three."""
        asked = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        if asked:
            token_ids, words = self._tokenized([_PROMPT.format(*pair) for pair in asked])
            reading = self._read(token_ids, words)
            self.read_s += reading.read_s
            for pair, found in zip(asked, reading.logprobs, strict=True):
                self._known[pair] = _shares([math.fsum(tokens) for tokens in found])
        return [self._known[pair] for pair in pairs]

    def _tokenized(self, texts: Sequence[str]) -> tuple[list[tuple[int, ...]], list[Continuations]]:
        """The tokens of some prompts, and of the three words behind each.

        Raises:
            ConfigError: the tokenizer joins a word with its prompt.
        """
        prompts = [self._template(text) for text in texts]
        space = "" if self._template.source else " "
        before = [tuple(ids) for ids in self._template.tokenize(prompts)]
        behind = self._template.tokenize([f"{prompt}{space}{word}" for prompt in prompts for word in WORDS])
        words: list[Continuations] = []
        for row, ids in enumerate(before):
            found = [tuple(each) for each in behind[len(WORDS) * row : len(WORDS) * (row + 1)]]
            if any(each[: len(ids)] != ids or len(each) == len(ids) for each in found):
                raise ConfigError(
                    "the tokenizer joins the prompt about two texts with its reply, so that the model cannot be asked "
                    "which entails which; set probe.entailment=exact or name a classifier."
                )
            words.append(tuple(each[len(ids) :] for each in found))
        return before, words


_PROMPT = "Text 1: {}\nText 2: {}\nDoes text 1 entail text 2? Reply with contradiction, neutral or entailment.\nReply:"


def _shares(logprobs: Sequence[float]) -> Relation:
    most = max(logprobs)
    masses = [math.exp(each - most) for each in logprobs]
    first, second, third = (mass / math.fsum(masses) for mass in masses)
    return first, second, third
