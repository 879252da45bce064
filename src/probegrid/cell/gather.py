"""What the needs of a cell's probe name, read: from the store, or from the model.

Knows which reading each need is; nothing of how one is made, nor of what the probe does with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from probegrid.cell.grade import Grader
from probegrid.cell.judge import Judged, ask_judge
from probegrid.cell.options import ScoredOptions
from probegrid.cell.shared_words import SharedWords
from probegrid.data.example import Question, QuestionSet
from probegrid.evaluation.correctness import Judgement
from probegrid.evaluation.extraction import Extracted
from probegrid.models.kinds import reads_both_ways
from probegrid.probes import ITSELF, Of, Similarity
from probegrid.readings.asks import Replies, put
from probegrid.readings.options import without_thoughts
from probegrid.readings.spans import Passage, Position, answer_passages, sample_passages

if TYPE_CHECKING:
    from probegrid.cell.cell import Cell
    from probegrid.inference.generation import Generation
    from probegrid.readings.activations import ActivationReading
    from probegrid.readings.answers import AnswerReading
    from probegrid.readings.entailment import Entailments, OwnEntailments
    from probegrid.readings.session import ModelSession
    from probegrid.readings.similarity import Similarities
    from probegrid.readings.token_steps import StepReading


@dataclass(frozen=True)
class JudgedAnswers:
    """The model's answers to a set of questions, each with its verdict."""

    data: QuestionSet
    reading: AnswerReading
    verdicts: Sequence[Judgement]
    extracted: Sequence[Extracted | None] | None = None
    """The part of each answer that was judged; None where all of every answer was."""
    judged: Judged | None = None
    """What the second model said of the answers it was asked about; None where there is none."""
    judge_s: float = 0.0
    """Seconds that asking it took."""
    options: ScoredOptions | None = None
    """The options with their log-probabilities; None where they are not asked for."""

    @property
    def correct(self) -> list[bool]:
        """Whether each answer is correct."""
        return [verdict.correct for verdict in self.verdicts]


@dataclass(frozen=True)
class Gathered:
    """Everything that was read for a cell."""

    answers: JudgedAnswers | None = None
    """None where the examples are statements."""
    asked: Mapping[str, Replies] = field(default_factory=dict)
    """What the model said to the probe's own prompts, by name."""
    hidden: ActivationReading | None = None
    """None where no hidden state is needed."""
    steps: StepReading | None = None
    """The distributions of the greedy answers' tokens; None where they are not needed."""

    @property
    def read_s(self) -> float:
        """Seconds of all readings, those of earlier runs included."""
        answers = 0.0 if self.answers is None else self.answers.reading.read_s
        if self.answers is not None and self.answers.options is not None:
            answers += self.answers.options.reading.read_s
        hidden = 0.0 if self.hidden is None else self.hidden.read_s
        steps = 0.0 if self.steps is None else self.steps.read_s
        return answers + hidden + steps + sum(replies.read_s for replies in self.asked.values())


def gather(cell: Cell, session: ModelSession) -> Gathered:
    """Read what a cell needs.

    Raises:
        StoreError: a file of the store that may not be read, or a full disk.
        RunError: one example alone does not fit in memory, or an activation is not finite.
    """
    if cell.statements is not None:
        return Gathered(hidden=session.activations(cell.statements.passages, cell.layers))
    answers = _answers(cell, session)
    asked, steps = _asked(cell, session, answers), _steps(cell, session, answers)
    return Gathered(answers, asked, _hidden(cell, session, answers), steps)


@contextmanager
def entailments_of(
    cell: Cell, session: ModelSession, answers: JudgedAnswers
) -> Iterator[Entailments | OwnEntailments | None]:
    """The second model that the needs name, let go at the end, or the model itself; None where they name none."""
    if cell.needs.classifier == ITSELF:
        yield session.own_entailments()
        return
    if cell.classifier is None:
        yield None
        return
    with session.entailments(cell.classifier, answers.reading.key) as entailments:
        yield entailments


@contextmanager
def similarities_of(
    cell: Cell, session: ModelSession, answers: JudgedAnswers
) -> Iterator[Similarities | SharedWords | None]:
    """Who says how alike texts are, let go at the end; None where those do who say how they relate."""
    if cell.cross_encoder is None:
        yield SharedWords() if cell.needs.similarity is Similarity.rouge_l else None
        return
    with session.similarities(cell.cross_encoder, answers.reading.key) as similarities:
        yield similarities


def _steps(cell: Cell, session: ModelSession, answers: JudgedAnswers) -> StepReading | None:
    if not cell.needs.distributions:
        return None
    prompts, greedy = answers.reading.prompts, answers.reading.greedy
    return session.distributions(
        [prompt.token_ids for prompt in prompts], [answer.token_ids for answer in greedy]
    )


def _answers(cell: Cell, session: ModelSession) -> JudgedAnswers:
    config, data = cell.config, cell.examples
    assert isinstance(data, QuestionSet)
    reading = session.answers(cell.prompts, config.decoding, config.prompt.stop)
    grader = Grader.of(data, config.prompt)
    judged, judge_s = _judged(cell, session, grader, zip(data.questions, reading.greedy, strict=True))
    grader = replace(grader, judged=judged or {})
    graded = [
        grader.grade(question, answer)
        for question, answer in zip(data.questions, reading.greedy, strict=True)
    ]
    extracted = [found for found, _ in graded] if grader.extracts else None
    return JudgedAnswers(
        data,
        reading,
        [verdict for _, verdict in graded],
        extracted,
        judged,
        judge_s,
        _options(cell, data, session),
    )


def _judged(
    cell: Cell, session: ModelSession, grader: Grader, answers: Iterable[tuple[Question, Generation]]
) -> tuple[Judged | None, float]:
    """What the second model says of the parts of answers that are judged; nothing where there is none."""
    if cell.judge is None:
        return None, 0.0
    parts = [(question, grader.judged_part(question, answer)) for question, answer in answers]
    return ask_judge(cell, session, [(question, part.text) for question, part in parts if part is not None])


def _options(cell: Cell, data: QuestionSet, session: ModelSession) -> ScoredOptions | None:
    if not cell.options:
        return None
    prompts = without_thoughts(cell.prompts, session.template)
    reading = session.options([prompt.token_ids for prompt in prompts], cell.options)
    return ScoredOptions(data.questions, cell.config.prompt.score_options, reading)


def _asked(cell: Cell, session: ModelSession, answers: JudgedAnswers) -> dict[str, Replies]:
    config, grader = cell.config, Grader.of(answers.data, cell.config.prompt)
    found: dict[str, Replies] = {}
    for name, ask in cell.needs.asks.items():
        shown = cell.worked[name]
        worked = session.answers(shown, config.decoding, config.prompt.stop) if shown else None
        if worked is not None:
            pairs = zip((prompt.question for prompt in worked.prompts), worked.greedy, strict=True)
            grader = replace(grader, judged=_judged(cell, session, grader, pairs)[0] or {})
        found[name] = put(
            session,
            name,
            ask,
            answers.reading,
            worked,
            partial(_is_correct, grader),
        )
    return found


def _is_correct(grader: Grader, question: Question, answer: Generation) -> bool:
    return grader.grade(question, answer)[1].correct


def _hidden(cell: Cell, session: ModelSession, answers: JudgedAnswers) -> ActivationReading | None:
    hidden = cell.needs.hidden
    if hidden is None:
        return None
    position, context = Position(hidden.position), session.checkpoint.context
    apart = reads_both_ways(str(session.checkpoint.config["model_type"]))
    passages: tuple[Passage, ...]
    if hidden.of is Of.samples:
        passages = sample_passages(answers.reading, position, context=context, prompts_apart=apart)
    else:
        passages = answer_passages(
            answers.reading, answers.correct, position, context=context, prompts_apart=apart
        )
    return session.activations(passages, cell.layers)
