"""Answers of models that think first: the thought is one reading, the answer that follows it another.

A thought has a budget of its own and no stop but its closing mark; the answer is a continuation of prompt and thought,
with the prompt's stops and the log-probabilities of its own tokens. So nothing that makes readings knows of thoughts.
Knows which prompts and answers begin one.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from probegrid.errors import ConfigError
from probegrid.readings.answers import AnswerReading
from probegrid.readings.prompts import Prompt
from probegrid.readings.thinking import Marks, begun_in, open_in
from probegrid.schema import DecodingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from probegrid.inference.generation import Generation

    Place = tuple[str, int]
    """Digest of a prompt, and which of its generations: 0 is the greedy one."""

Read = Callable[[Sequence[Prompt], DecodingConfig, Sequence[str]], AnswerReading]
"""Reads answers to prompts, with these stops."""
_BEGINNING = 16
"""Tokens of an answer in which a mark stands if it begins with one."""


@dataclass
class ThinkingReader:
    """Reads the answers of one model, behind its thoughts where it has any."""

    read: Read
    read_thoughts: Read
    """The same, with the special tokens as text and no stop but those that are given."""
    tokenizer: PreTrainedTokenizerBase
    marks: Sequence[Marks]
    context: int | None
    """Most tokens the model takes; None is no limit."""
    _readings: list[AnswerReading] = field(default_factory=list, init=False)

    def answers(
        self, prompts: Sequence[Prompt], decoding: DecodingConfig, stop: Sequence[str]
    ) -> AnswerReading:
        """The answers; those behind a thought hold it (``Generation.thinking``).

        Raises:
            ConfigError: the context does not hold a prompt, its thought and its answer.
        """
        self._readings = []
        opened = {prompt.digest: open_in(prompt.text, self.marks) for prompt in prompts}
        direct = [prompt for prompt in prompts if opened[prompt.digest] is None]
        first: dict[str, tuple[Generation, ...]] = {}
        if direct:
            reading = self._take(self.read(direct, decoding, stop))
            first = {prompt.digest: found for prompt, found in zip(direct, reading.generations, strict=True)}
        begun: dict[Place, Marks] = {}
        count = 1 + (decoding.num_generations if decoding.do_sample else 0)
        for digest, marks in opened.items():
            if marks is not None:
                begun |= {(digest, index): marks for index in range(count)}
        for digest, found in first.items():
            for index, generation in enumerate(found):
                if marks := begun_in(self._beginning(generation), self.marks):
                    begun[digest, index] = marks
        if not begun:
            return self._readings[0]
        behind = self._behind_thoughts(prompts, begun, decoding, stop)
        generations = tuple(
            tuple(
                behind[prompt.digest, index]
                if (prompt.digest, index) in behind
                else first[prompt.digest][index]
                for index in range(count)
            )
            for prompt in prompts
        )
        return replace(
            self._readings[-1],
            prompts=tuple(prompts),
            generations=generations,
            read_s=sum(each.read_s for each in self._readings),
            found_s=sum(each.found_s for each in self._readings),
            generated_tokens=sum(each.generated_tokens for each in self._readings),
        )

    def _take(self, reading: AnswerReading) -> AnswerReading:
        self._readings.append(reading)
        return reading

    def _beginning(self, generation: Generation) -> str:
        """The first characters of an answer, marks that are special tokens among them."""
        return self._text(generation.token_ids[:_BEGINNING])

    def _text(self, token_ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def _behind_thoughts(
        self,
        prompts: Sequence[Prompt],
        begun: Mapping[Place, Marks],
        decoding: DecodingConfig,
        stop: Sequence[str],
    ) -> dict[Place, Generation]:
        """The generations that think: their thoughts, then the answers behind those that come to an end."""
        thoughts = self._thoughts(prompts, begun, decoding)
        asked = {prompt.digest: prompt for prompt in prompts}
        continued = {
            place: _behind(asked[place[0]], thought, self._text(thought.token_ids))
            for place, thought in thoughts.items()
            if begun[place].close in self._text(thought.token_ids)
        }
        answers = self._continued(continued, decoding, stop)
        return {
            place: self._whole(thought, begun[place], answers.get(place), decoding.max_thinking_tokens)
            for place, thought in thoughts.items()
        }

    def _thoughts(
        self, prompts: Sequence[Prompt], begun: Mapping[Place, Marks], decoding: DecodingConfig
    ) -> dict[Place, Generation]:
        """The thoughts, up to and with their closing marks; a family of marks is a reading."""
        thinking = replace(decoding, max_new_tokens=decoding.max_thinking_tokens, count_stop=True)
        found: dict[Place, Generation] = {}
        for marks in dict.fromkeys(begun.values()):
            digests = {digest for (digest, _), of_place in begun.items() if of_place is marks}
            thinkers = [prompt for prompt in prompts if prompt.digest in digests]
            self._check_room(thinkers, decoding)
            reading = self._take(self.read_thoughts(thinkers, thinking, [marks.close]))
            for prompt, generations in zip(thinkers, reading.generations, strict=True):
                found |= {
                    (prompt.digest, index): thought
                    for index, thought in enumerate(generations)
                    if begun.get((prompt.digest, index)) is marks
                }
        return found

    def _check_room(self, prompts: Sequence[Prompt], decoding: DecodingConfig) -> None:
        longest = max(prompts, key=lambda prompt: len(prompt.token_ids))
        needed = len(longest.token_ids) + decoding.max_thinking_tokens + decoding.max_new_tokens
        if self.context is not None and needed > self.context:
            raise ConfigError(
                f"the model thinks before it answers: the prompt of question {longest.question.id} has "
                f"{len(longest.token_ids)} tokens, its thought may take {decoding.max_thinking_tokens} and its answer "
                f"{decoding.max_new_tokens}, but the model's context is {self.context}; lower "
                "decoding.max_thinking_tokens or prompt.num_few_shot."
            )

    def _continued(
        self, continued: Mapping[Place, Prompt], decoding: DecodingConfig, stop: Sequence[str]
    ) -> dict[Place, Generation]:
        """The answers behind thoughts: greedy ones by one reading, samples by another."""
        found: dict[Place, Generation] = {}
        greedy = {place: prompt for place, prompt in continued.items() if place[1] == 0}
        if greedy:
            reading = self.read(
                [*greedy.values()], replace(decoding, do_sample=False, num_generations=1), stop
            )
            found |= dict(zip(greedy, self._take(reading).greedy, strict=True))
        sampled = {place: prompt for place, prompt in continued.items() if place[1]}
        if sampled:
            # samples of one prompt that thought the same are several draws behind the same tokens
            most = max(Counter(prompt.digest for prompt in sampled.values()).values())
            reading = self.read([*sampled.values()], replace(decoding, num_generations=most), stop)
            drawn: dict[str, int] = defaultdict(int)
            for place, prompt, generations in zip(
                sampled, sampled.values(), self._take(reading).generations, strict=True
            ):
                drawn[prompt.digest] += 1
                found[place] = generations[drawn[prompt.digest]]
        return found

    def _whole(self, thought: Generation, marks: Marks, answer: Generation | None, most: int) -> Generation:
        """An answer with its thought; of a thought that has no end, what says that there is no answer."""
        if answer is not None:
            return replace(
                answer,
                steps=thought.steps + answer.steps,
                thinking_ids=thought.token_ids,
                thinking=marks.inside(self._text(thought.token_ids)),
            )
        is_cut = thought.ended == "length" or thought.steps == most
        ids = thought.token_ids if is_cut else thought.token_ids[:-1]  # but for the end of the sequence
        return replace(
            thought,
            token_ids=(),
            token_logprobs=(),
            text="",
            first_entropy=math.nan,
            first_logprob=math.nan,
            ended="length" if is_cut else "empty",
            thinking_ids=ids,
            thinking=marks.inside(self._text(ids)),
        )


def _behind(prompt: Prompt, thought: Generation, text: str) -> Prompt:
    return Prompt(prompt.question, prompt.text + text, (*prompt.token_ids, *thought.token_ids))
