"""The rule ``judge``: a second model says whether an answer means the same as what is expected.

Knows the prompt that the field uses (semantic_uncertainty, Farquhar et al. 2024), what is read of the reply (the share
of yes in yes and no), and which answers need no asking. The readings are *options* of the second model, stored like any
other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from probegrid.data.example import Question, QuestionSet
from probegrid.errors import ConfigError
from probegrid.evaluation.rules import Judge
from probegrid.readings.options import check_fit, continuations_of
from probegrid.readings.prompts import Prompt
from probegrid.readings.templates import OWN, ChatTemplate
from probegrid.schema import Config, ModelConfig, QuantizationConfig

if TYPE_CHECKING:
    from probegrid.cell.cell import Cell, Model
    from probegrid.cell.lookup import Lookup
    from probegrid.readings.session import ModelSession

YES, NO = "yes", "no"
_LARGEST_EXPONENT = 700.0
Judged = Mapping[tuple[str, str], float]
"""By id of a question and text of an answer: p(yes) / (p(yes) + p(no))."""


def judge_prompt(question: Question, answer: str) -> str:
    """What the second model is asked, in the order of ``model_based_metric`` of semantic_uncertainty."""
    several = len(question.references) > 1
    expected = (
        f"The following are expected answers to this question: {list(question.references)}."
        if several
        else f"The expected answer is: {question.references[0]}."
    )
    same_as = "any of the expected answers" if several else "the expected answer"
    return (
        f"We are assessing the quality of answers to the following question: {question.text}\n{expected}\n"
        f"The proposed answer is: {answer}\n"
        f"Within the context of the question, does the proposed answer mean the same as {same_as}?\n"
        "Respond only with yes or no.\nResponse:"
    )


def judge_of(data: QuestionSet, config: Config, lookup: Lookup) -> Model | None:
    """The second model, where the rule asks for one; no weight is read.

    Raises:
        ConfigError: the rule asks for one and none is named, or one is named for another rule.
        CheckpointError: it is missing, or no checkpoint.
    """
    from probegrid.cell.cell import Model

    path = getattr(config.dataset, "judge", None)
    if data.rule != Judge.name:
        if path:
            raise ConfigError(
                f"dataset.judge={path} is for dataset.rule=judge, and the rule is {data.rule}; drop one."
            )
        return None
    if not path:
        raise ConfigError(
            "dataset.rule=judge asks a second model; name it with dataset.judge=<hub id or folder>."
        )
    model = _config(config).model
    checkpoint = lookup.judge(model)
    return Model(checkpoint, lookup.tokenizer(model, checkpoint))


def ask_judge(
    cell: Cell, session: ModelSession, answers: Sequence[tuple[Question, str]]
) -> tuple[Judged, float]:
    """What the second model says of answers; those that the rule knows by themselves are not asked about.

    Args:
        cell: whose second model it is.
        session: of the first model, which leaves memory for it.
        answers: questions with the texts to be judged.

    Returns:
        By question and text, the share of yes; and the seconds that reading took, those of earlier runs included.
    """
    assert cell.judge is not None
    rule = Judge()
    asked = {
        (question.id, text): question
        for question, text in answers
        if question.references and text.strip() and not rule.judge(text, question.references).correct
    }
    if not asked:
        return {}, 0.0
    checkpoint, template = cell.judge.checkpoint, _template(cell.judge)
    second = session.of_another(_config(cell.config), checkpoint, cell.judge.tokenizer)
    texts = [template.closed(template(judge_prompt(question, text))) for (_, text), question in asked.items()]
    prompts = [
        Prompt(question, text, tuple(ids))
        for question, text, ids in zip(asked.values(), texts, template.tokenize(texts), strict=True)
    ]
    options = continuations_of(
        prompts, lambda _: (YES, NO), template, begins_turn=template.source is not None
    )
    check_fit(prompts, options, checkpoint.context)
    reading = second.options([prompt.token_ids for prompt in prompts], options)
    session.found_s += second.found_s
    return {key: _share(*found) for key, found in zip(asked, reading.logprobs, strict=True)}, reading.read_s


def _share(yes: Sequence[float], no: Sequence[float]) -> float:
    """The share of yes in yes and no, by the log-probabilities of their tokens."""
    return 1 / (1 + math.exp(min(math.fsum(no) - math.fsum(yes), _LARGEST_EXPONENT)))


def _config(config: Config) -> Config:
    """The cell's config with the second model in the first one's place, unquantized."""
    path = getattr(config.dataset, "judge", None)
    model = ModelConfig(path=str(path), dtype=config.model.dtype)
    return replace(config, model=model, quantization=QuantizationConfig())


def _template(model: Model) -> ChatTemplate:
    """The second model's own chat template, where it has one."""
    return ChatTemplate(model.tokenizer, OWN if model.tokenizer.chat_template else None)
