"""From questions to the token ids a model reads.

Knows the prompt formats of the field: blocks of plain text, a Jinja template of one's own, and under a chat template
the turns of a conversation.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from probegrid.data.example import Question, QuestionSet
from probegrid.errors import ConfigError
from probegrid.readings.identity import digest_of
from probegrid.readings.templates import ChatTemplate
from probegrid.schema import PromptConfig


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question, ready for the model."""

    question: Question
    text: str
    """The prompt as text, the chat template included."""
    token_ids: tuple[int, ...]
    digest: str = field(init=False)
    """What its tokens are known by in the store (`readings.identity.digest_of`)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of(self.token_ids))


def choose_shots(data: QuestionSet, config: PromptConfig) -> tuple[Question, ...]:
    """Draw the worked examples, the same for every question, from a generator of their own.

    Raises:
        ConfigError: there are fewer examples than asked for, or too few whose reasoning is known where it is shown.
    """
    pool = [shot for shot in data.shots if shot.solution or not config.reasoning]
    if config.num_few_shot > len(pool):
        lacking = len(data.shots) - len(pool)
        but = (
            f"; {lacking} more have no reasoning to show, which prompt.reasoning=true asks for"
            if lacking
            else ""
        )
        most = f"{len(pool)} or less" if pool else "0"
        raise ConfigError(
            f"prompt.num_few_shot={config.num_few_shot} asks for more examples than the dataset can show "
            f"({len(pool)} that are not evaluated{but}); set prompt.num_few_shot={most}."
        )
    if data.shots_in_order:
        return tuple(pool[: config.num_few_shot])
    return tuple(random.Random(f"shots/{config.seed}").sample(pool, config.num_few_shot))


def render(config: PromptConfig, shots: Sequence[Question], question: Question) -> str:
    """Write the few-shot prompt of semantic_uncertainty (Kuhn et al. 2023), which ends in ``Answer:``.

    Options stand as lettered lines under their question, earlier turns of a conversation before it; under
    ``prompt.reasoning`` it ends in ``Reasoning:``.
    """
    lead = "" if config.brief_always else config.instruction
    return (
        lead
        + "".join(f"{_block(config, shot)} {_shown(config, shot)}\n\n" for shot in shots)
        + _block(config, question)
    )


def _block(config: PromptConfig, question: Question) -> str:
    repeated = config.instruction if config.brief_always else ""
    earlier = "".join(f"Question: {asked}\nAnswer: {answer}\n" for asked, answer in question.history)
    label = "Reasoning:" if config.reasoning else "Answer:"
    return f"{repeated}{_context(config, question)}{earlier}Question: {_asked(question)}\n{label}"


def _context(config: PromptConfig, question: Question) -> str:
    return f"Context: {question.context}\n" if config.use_context and question.context else ""


def _asked(question: Question) -> str:
    """The question with its options."""
    return "\n".join([question.text, *(f"{letter}. {option}" for letter, option in _lettered(question))])


def _lettered(question: Question) -> list[tuple[str, str]]:
    return list(zip(string.ascii_uppercase, question.options, strict=False))


def _shown(config: PromptConfig, shot: Question) -> str:
    """What an example answers."""
    answer = shot.references[0]
    return f"{shot.solution} The answer is {answer}." if config.reasoning else answer


def turns(config: PromptConfig, shots: Sequence[Question], question: Question) -> list[dict[str, str]]:
    """The prompt as a conversation: examples and earlier turns of the question as turns of their own.

    The turn of an example begins as the model's own is begun: shown bare letters, a model that is made to say
    ``The answer is`` goes on with a colon and a new line.
    """
    begun = f"{config.prefill} " if config.prefill else ""
    system = config.instruction.strip() if config.system is None else config.system
    said = [{"role": "system", "content": system}] if system else []

    def exchange(asked: str, answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]

    for shot in shots:
        said += _conversation(config, shot, exchange)
        said.append({"role": "assistant", "content": f"{begun}{_shown(config, shot)}"})
    return [*said, *_conversation(config, question, exchange)]


def _conversation(
    config: PromptConfig, question: Question, exchange: Callable[[str, str], list[dict[str, str]]]
) -> list[dict[str, str]]:
    """The turns of one question, its own the last; its context on top of the first."""
    said = [turn for asked, answer in question.history for turn in exchange(asked, answer)]
    said.append({"role": "user", "content": _asked(question)})
    context = question.context if config.use_context else ""
    if context:
        said[0] = {**said[0], "content": f"{context}\n\n{said[0]['content']}"}
    return said


class OwnTemplate:
    """A prompt's Jinja template."""

    def __init__(self, given: str) -> None:
        """Take the text of a template, or the file that holds it.

        Raises:
            ConfigError: it is no template, or there is no such file.
        """
        from jinja2 import StrictUndefined, TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
        )
        try:
            self._template = environment.from_string(self._source(given))
        except TemplateError as error:
            raise ConfigError(f"prompt.template is no Jinja template: {error}.") from error

    @staticmethod
    def _source(given: str) -> str:
        if "{{" in given or "{%" in given:
            return given.replace("\\n", "\n")  # as a shell hands on what is typed
        path = Path(given).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"prompt.template={given} is neither a file nor a template, which holds {{{{ question }}}}."
            )
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"prompt.template={given} cannot be read: {error}.") from error
        return source

    def __call__(self, config: PromptConfig, shots: Sequence[Question], question: Question) -> str:
        """The prompt of a question.

        Raises:
            ConfigError: the template asks for what there is not, or shows no question.
        """
        from jinja2 import TemplateError

        try:
            text = self._template.render(
                **_variables(question),
                shots=[_variables(shot) | {"answer": _shown(config, shot)} for shot in shots],
                instruction=config.instruction,
            )
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ConfigError(
                f"prompt.template cannot be rendered for question {question.id}: {error}."
            ) from error
        if question.text not in text:
            raise ConfigError(
                "prompt.template does not show the question; write {{ question }} where it belongs."
            )
        return text


def _variables(question: Question) -> dict[str, Any]:
    return {
        "question": question.text,
        "context": question.context,
        "options": [{"letter": letter, "text": option} for letter, option in _lettered(question)],
        "history": [{"question": asked, "answer": answer} for asked, answer in question.history],
    }


def _writer(
    config: PromptConfig, shots: Sequence[Question], template: ChatTemplate
) -> Callable[[Question], str]:
    """What writes the prompt of a question, the chat template included."""
    if template.source is None:
        return partial(_in_plain_text(config), config, shots)
    said = sayer(config, shots)
    return lambda question: template.of_turns(said(question), config.prefill)


def _in_plain_text(config: PromptConfig) -> Callable[[PromptConfig, Sequence[Question], Question], str]:
    return render if config.template is None else OwnTemplate(config.template)


def sayer(config: PromptConfig, shots: Sequence[Question]) -> Callable[[Question], list[dict[str, str]]]:
    """What makes of a question the turns that a chat template is given, the user's last.

    Raises:
        ConfigError: the prompt's own template is none.
    """
    if config.turns and config.template is None:
        return partial(turns, config, shots)
    write = _in_plain_text(config)
    system = [{"role": "system", "content": config.system}] if config.system else []
    return lambda question: [*system, {"role": "user", "content": write(config, shots, question)}]


def build_prompts(
    questions: Sequence[Question],
    shots: Sequence[Question],
    config: PromptConfig,
    template: ChatTemplate,
) -> tuple[Prompt, ...]:
    """Render and tokenize the prompt of every question.

    Raises:
        ConfigError: the chat template, or the prompt's own, cannot be rendered.
    """
    texts = list(map(_writer(config, shots, template), questions))
    token_ids = template.tokenize(texts) if texts else []
    return tuple(
        Prompt(question, text, tuple(ids))
        for question, text, ids in zip(questions, texts, token_ids, strict=True)
    )


def check_lengths(
    prompts: Sequence[Prompt],
    config: PromptConfig,
    max_new_tokens: int,
    context: int | None,
    *,
    thought: int = 0,
) -> None:
    """Refuse prompts that the model cannot hold together with their answers; None is no limit.

    Raises:
        ConfigError: a prompt, ``thought`` and ``max_new_tokens`` pass ``context`` tokens.
    """
    longest = max(prompts, key=lambda prompt: len(prompt.token_ids))
    length = len(longest.token_ids)
    if context is None or length + thought + max_new_tokens <= context:
        return
    thinks = f", its thought may take {thought}" if thought else ""
    ways = [
        *(["lower prompt.num_few_shot"] if config.num_few_shot else []),
        *(["lower decoding.max_thinking_tokens"] if thought and length < context else []),
        *(["lower decoding.max_new_tokens"] if length < context else []),
        *(["set prompt.use_context=false"] if config.use_context else []),
        "take a model that holds more",
    ]
    raise ConfigError(
        f"the prompt of question {longest.question.id} has {length} tokens{thinks} and its answer may take "
        f"{max_new_tokens}, but the model's context is {context}; {', or '.join(ways)}."
    )


def shared_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Count the token ids that all prompts begin with, leaving each at least one of its own."""
    first, last = (
        min(prompts),
        max(prompts),
    )  # the common prefix of all is that of the two extremes in dictionary order
    length = next(
        (index for index, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    return min(length, min(map(len, prompts)) - 1)
