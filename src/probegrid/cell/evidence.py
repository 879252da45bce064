"""What judges are handed of a cell: all that was read of each question, as plain numbers and texts.

Knows what was gathered, and who is asked about pairs of texts: all pairs of all questions at once, each once.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from probegrid.cell.grade import rule_of
from probegrid.judges import Evidence, Read
from probegrid.judges.clustering import clusters_of
from probegrid.probes import Of, Similarity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from probegrid.cell.cell import Cell
    from probegrid.cell.gather import Gathered, JudgedAnswers
    from probegrid.inference.generation import Generation
    from probegrid.judges.evidence import Floats
    from probegrid.models.classifier import Pair, Relation
    from probegrid.models.load import Tokenizer
    from probegrid.readings.token_steps import TokenSteps

_ENTAILS, _CONTRADICTS = (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)
_FEWEST_COMPARED = 2
_ALONE = 0.5  # relevance of an answer's only token, as in LM-Polygraph: whatever it is, it is normalized to 1


class Relates(Protocol):
    """Who says how texts relate: a classifier, or the model itself."""

    kind: ClassVar[str]
    """Name of the reading."""

    @property
    def read_s(self) -> float:
        """Seconds of it."""
        ...

    def __call__(self, pairs: Sequence[Pair]) -> Sequence[bool]:
        """Whether the first of each pair entails the second."""
        ...

    def relations(self, pairs: Sequence[Pair]) -> Sequence[Relation]:
        """How it relates to it."""
        ...


class Compares(Protocol):
    """Who says how alike texts are."""

    kind: ClassVar[str]
    """Name of the reading."""

    @property
    def read_s(self) -> float:
        """Seconds of it."""
        ...

    def __call__(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """How alike the two texts of each pair are, in [0, 1]."""
        ...


Alike = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
"""How alike the two texts of each pair are, in [0, 1]."""


@dataclass(frozen=True)
class Asked:
    """Who is asked about texts."""

    relates: Relates | None = None
    """None: equal texts entail each other, and others contradict each other."""
    compares: Compares | None = None
    """Who says how alike two texts are; None: who relates them (`Needs.similarity`)."""

    def alike(self) -> Alike:
        """How alike texts are."""
        if self.compares is not None:
            return self.compares
        relates = self.relates
        if relates is None:
            return lambda pairs: [float(first == second) for first, second in pairs]
        return lambda pairs: [entails for _, _, entails in relates.relations(pairs)]


def reads_of(cell: Cell, gathered: Gathered) -> frozenset[Read]:
    """What the readings of a cell hold for judges."""
    answers, needs = gathered.answers, cell.needs
    assert answers is not None
    found = {Read.greedy, Read.greedy_relevance}
    if len(answers.reading.generations[0]) > _FEWEST_COMPARED:
        found |= {Read.samples, Read.clusters, Read.similarities, Read.relevance}
        if needs.relations or needs.classifier is None:
            found |= {Read.relations}
        if gathered.hidden is not None and needs.hidden is not None and needs.hidden.of is Of.samples:
            found |= {Read.states}
    if gathered.steps is not None:
        found |= {Read.steps, Read.alternatives}
        found |= {Read.attention} if gathered.steps.has_attention else set()
    if answers.options is not None:
        found |= {Read.options}
    return frozenset(found)


def evidence_of(cell: Cell, gathered: Gathered, asked: Asked) -> list[Evidence]:
    """What judges have of each question; whoever is asked about texts is asked here, all pairs at once.

    Args:
        cell: what was read.
        gathered: everything that its needs named.
        asked: who is asked about texts.
    """
    answers, reads = gathered.answers, reads_of(cell, gathered)
    assert answers is not None
    texts = _Texts.of(answers, with_samples=Read.samples in reads)
    n, alike = len(texts.found), asked.alike()
    nothing: list[None] = [None] * n
    relations = _relations(asked.relates, texts) if Read.relations in reads else nothing
    clusters = (
        clusters_of(answers.data, [found[1:] for found in texts.plain], asked.relates)
        if Read.clusters in reads
        else [[] for _ in range(n)]
    )
    shown = texts.stated if cell.needs.similarity is Similarity.entailment else texts.plain
    similarities = _similarities(alike, shown) if Read.similarities in reads else nothing
    steps = (
        [_written_first(*each) for each in zip(gathered.steps.steps, answers.reading.greedy, strict=True)]
        if gathered.steps is not None
        else nothing
    )
    alternatives = _alternatives(cell, asked.relates, steps) if Read.alternatives in reads else nothing
    relevance = _relevance(cell, alike, texts)
    states = _states(gathered, n) if Read.states in reads else nothing
    return [
        Evidence(
            question=question.text,
            greedy=texts.found[row][0],
            samples=texts.found[row][1:],
            same_text=texts.same[row],
            clusters=tuple(clusters[row]),
            relations=relations[row],
            similarities=similarities[row],
            relevance=relevance[row],
            steps=steps[row],
            alternatives=alternatives[row],
            states=states[row],
            options=() if answers.options is None else answers.options.sums[row],
            asked={name: each.logprobs[row] for name, each in gathered.asked.items() if each.logprobs},
            said={name: each.texts[row] for name, each in gathered.asked.items() if each.texts},
        )
        for row, question in enumerate(answers.data.questions)
    ]


@dataclass(frozen=True)
class _Texts:
    """What was said to each question, the greedy answer first."""

    questions: tuple[str, ...]
    found: tuple[tuple[Generation, ...], ...]
    plain: tuple[tuple[str, ...], ...]
    stated: tuple[tuple[str, ...], ...]
    """Each behind its question."""
    same: tuple[tuple[str, ...], ...]
    """Each normalized by the rule of the set."""

    @classmethod
    def of(cls, answers: JudgedAnswers, *, with_samples: bool) -> _Texts:
        """The greedy answers, and the samples where they are of use."""
        rule, asked = rule_of(answers.data), tuple(question.text for question in answers.data.questions)
        found = tuple(each if with_samples else each[:1] for each in answers.reading.generations)
        plain = tuple(tuple(one.text for one in each) for each in found)
        return cls(
            asked,
            found,
            plain,
            tuple(
                tuple(f"{question} {text}" for text in each)
                for question, each in zip(asked, plain, strict=True)
            ),
            tuple(tuple(rule.normalize(text) for text in each) for each in plain),
        )


def _relations(relates: Relates | None, texts: _Texts) -> list[Floats]:
    """How every two answers to each question relate, [1 + m, 1 + m, 3]; equal texts are not asked about."""
    if relates is None:
        return [_by_equality(found) for found in texts.same]
    pairs = list(_every_two(texts.stated))
    known = dict(zip(pairs, relates.relations(pairs), strict=True))
    return [
        np.array([[_ENTAILS if one == other else known[one, other] for other in found] for one in found])
        for found in texts.stated
    ]


def _every_two(texts: Sequence[tuple[str, ...]]) -> dict[tuple[str, str], None]:
    """Both orders of every two unlike texts of each question."""
    return dict.fromkeys(pair for found in texts for pair in permutations(dict.fromkeys(found), 2))


def _by_equality(texts: Sequence[str]) -> Floats:
    names = np.array(texts, dtype=object)
    are_equal = (names[:, None] == names).astype(bool)
    return np.where(are_equal[..., None], _ENTAILS, _CONTRADICTS)


def _similarities(alike: Alike, texts: Sequence[tuple[str, ...]]) -> list[Floats]:
    """The mean similarity of both orders of every two answers to each question, [1 + m, 1 + m]; 1 of equal ones."""
    pairs = list(_every_two(texts))
    known = dict(zip(pairs, alike(pairs), strict=True))
    matrices = [
        np.array([[1.0 if one == other else known[one, other] for other in found] for one in found])
        for found in texts
    ]
    return [(matrix + matrix.T) / 2 for matrix in matrices]


def _relevance(cell: Cell, alike: Alike, texts: _Texts) -> list[list[Floats]]:
    """What each token adds: 1 less the similarity of the whole answer, behind its question, to it without the token."""
    assert cell.model is not None
    without = _without_each({one.token_ids for found in texts.found for one in found}, cell.model.tokenizer)
    pairs: dict[tuple[str, str], float] = {}
    for question, found in zip(texts.questions, texts.found, strict=True):
        for one in found:
            whole, parts = without[one.token_ids]
            pairs |= {(f"{question} {whole}", f"{question} {part}"): 0.0 for part in parts}
    asked = [pair for pair in pairs if pair[0] != pair[1]]
    pairs |= dict.fromkeys(pairs, 1.0) | dict(zip(asked, alike(asked), strict=True))

    def of_answer(question: str, one: Generation) -> Floats:
        whole, parts = without[one.token_ids]
        if len(parts) < _FEWEST_COMPARED:
            return np.full(1, _ALONE)
        return 1 - np.array([pairs[f"{question} {whole}", f"{question} {part}"] for part in parts])

    return [
        [of_answer(question, one) for one in found]
        for question, found in zip(texts.questions, texts.found, strict=True)
    ]


def _without_each(
    answers: Iterable[tuple[int, ...]], tokenizer: Tokenizer
) -> dict[tuple[int, ...], tuple[str, list[str]]]:
    """The text of each answer, and its text without each of its tokens; none where it has one token or none."""
    decoded: dict[tuple[int, ...], tuple[str, list[str]]] = {}
    for ids in answers:
        parts = [[*ids[:place], *ids[place + 1 :]] for place in range(len(ids))] if len(ids) > 1 else []
        whole, *others = tokenizer.batch_decode([list(ids), *parts], skip_special_tokens=True)
        decoded[ids] = (whole, others)
    return decoded


def _written_first(steps: TokenSteps, answer: Generation) -> TokenSteps:
    """The likeliest tokens of each step with the written one first, which is not always found the likeliest again."""
    ids, top = steps.top_ids.copy(), steps.top_logprobs.copy()
    for step, (token, logprob) in enumerate(zip(answer.token_ids, answer.token_logprobs, strict=True)):
        places = np.flatnonzero(ids[step] == token)
        place = int(places[0]) if places.size else ids.shape[1] - 1
        if not places.size:
            ids[step, place], top[step, place] = token, logprob
        for values in (ids[step], top[step]):
            values[: place + 1] = np.roll(values[: place + 1], 1)
    return replace(steps, top_ids=ids, top_logprobs=top)


def _alternatives(
    cell: Cell, relates: Relates | None, steps: Sequence[TokenSteps | None]
) -> list[Floats | None]:
    """How each likeliest token relates to the written one, by their texts without punctuation, [T, k, 2, 3]."""
    assert cell.model is not None
    read = [each for each in steps if each is not None]
    ids = sorted({int(token) for each in read for token in each.top_ids.flat})
    decoded = cell.model.tokenizer.batch_decode([[token] for token in ids])
    words = {token: text.strip(string.punctuation + " \n") for token, text in zip(ids, decoded, strict=True)}
    named = [[[words[int(token)] for token in row] for row in each.top_ids] for each in read]
    if relates is None:
        return [
            np.array([[(_by_equality_of(row[0], word),) * 2 for word in row] for row in one]) for one in named
        ]
    pairs = dict.fromkeys(
        pair
        for one in named
        for row in one
        for word in row
        if word != row[0]
        for pair in ((row[0], word), (word, row[0]))
    )
    known = dict(zip(pairs, relates.relations(list(pairs)), strict=True))

    def both(first: str, word: str) -> tuple[Relation, Relation]:
        return (_ENTAILS, _ENTAILS) if first == word else (known[first, word], known[word, first])

    return [np.array([[both(row[0], word) for word in row] for row in one]) for one in named]


def _by_equality_of(first: str, second: str) -> Relation:
    return _ENTAILS if first == second else _CONTRADICTS


def _states(gathered: Gathered, n: int) -> list[Floats]:
    """Hidden states of the samples, [m, d] float64, at the first layer that was read."""
    assert gathered.hidden is not None
    values = gathered.hidden.values(gathered.hidden.layers[0])
    each: list[Floats] = list(values.double().cpu().numpy().reshape(n, -1, values.shape[-1]))
    return each
