"""Chat templates: how messages become the text that a model of conversations was trained on.

Knows a tokenizer's own template, Jinja files, and what a template may ask for besides the messages. One that asks for
today's date gets a fixed one, so that every day's prompt is the same; one that can leave thinking out leaves it out.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probegrid.errors import ConfigError
from probegrid.readings.thinking import HARMONY, Marks, marks_of, open_in
from probegrid.schema import ModelConfig, ThinkingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATE_STRING = "26 Jul 2024"
"""The date that templates are told, Llama 3's own default; ``model.template_kwargs.date_string`` says another."""
PLAIN, OWN = "none", "default"
PLACEHOLDER = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands for a content whose place in a rendered text is looked for."""
_SWITCHES = ("enable_thinking", "thinking")
"""Arguments that switch thinking off where they are false: Qwen's, GLM's and others'; DeepSeek's and Granite's."""
_EFFORT = "reasoning_effort"
"""Of gpt-oss, which has no switch: the least there is."""
_DATE_FORMAT = "%d %b %Y"
_NOW = re.compile(r"""strftime_now\s*\(\s*(?P<quote>["'])(?P<form>[^"']*)(?P=quote)\s*\)""")
_ASKS_TIME = re.compile(r"strftime_now\s*\(|=\s*strftime_now\b")
"""A call, or another name for it."""
_OWN_ARGUMENTS = ("messages", "add_generation_prompt", "continue_final_message")
"""What a template is told by whoever renders it."""


class TemplateFailure(Exception):
    """What a template said, or stumbled over."""


class ChatTemplate:
    """How a prompt is wrapped for a model that was trained on conversations; plain text where there is no template."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        choice: str | None,
        kwargs: Mapping[str, Any] | None = None,
        thinking: ThinkingConfig | None = None,
    ) -> None:
        """Choose the template.

        Args:
            tokenizer: the model's.
            choice: None or ``none`` for plain text, ``default`` for the tokenizer's own, else a Jinja file's path.
            kwargs: ``model.template_kwargs``.
            thinking: ``model.thinking``; None: the marks are those that are known.

        Raises:
            ConfigError: the tokenizer has no template of its own, the file is missing or no text, an argument is
                probegrid's own, or the date is none.
        """
        self._tokenizer = tokenizer
        self._choice = choice
        self._given = {**(kwargs or {})}
        self._refuse_own_arguments()
        self._variables = {"date_string": DATE_STRING, **self._given}
        found = self._find(choice)
        self.marks = tuple(
            marks
            for marks in marks_of(thinking or ThinkingConfig())
            # other vendors begin a turn like gpt-oss, and know no channels
            if not marks.awaits or marks.open in (found or "")
        )
        """Of thoughts, in what is given and in what is said."""
        self.source = None if found is None else with_fixed_day(found, str(self._variables["date_string"]))
        self._is_dated = found is not None and (self.source != found or "date_string" in found)
        self._variables |= {
            name: value for name, value in self._least_thinking.items() if name not in self._given
        }

    @classmethod
    def of_questions(cls, tokenizer: PreTrainedTokenizerBase, model: ModelConfig) -> ChatTemplate:
        """The template that was chosen; plain text where none was."""
        return cls(tokenizer, model.chat_template, model.template_kwargs, model.thinking)

    @classmethod
    def of_conversations(cls, tokenizer: PreTrainedTokenizerBase, model: ModelConfig) -> ChatTemplate:
        """The template of conversations: where none is chosen, the tokenizer's own if it has one."""
        own = OWN if tokenizer.chat_template else None
        choice = own if model.chat_template is None else model.chat_template
        return cls(tokenizer, choice, model.template_kwargs, model.thinking)

    def _refuse_own_arguments(self) -> None:
        applied = inspect.signature(self._tokenizer.apply_chat_template).parameters
        own = {*_OWN_ARGUMENTS, *applied} - {"tools", "documents", "kwargs"}
        if wrong := sorted(own & self._given.keys()):
            raise ConfigError(
                f"model.template_kwargs.{wrong[0]} is set by probegrid itself; give only what the template's own text "
                "asks for, as enable_thinking or date_string."
            )

    def _find(self, choice: str | None) -> str | None:
        if choice in (None, PLAIN):
            return None
        if choice == OWN:
            if not self._tokenizer.chat_template:
                raise ConfigError(
                    "model.chat_template=default: this tokenizer has no chat template; use null or a file."
                )
            try:
                return str(self._tokenizer.get_chat_template())
            except ValueError as error:  # several by name, none of them the default
                names = ", ".join(self._tokenizer.chat_template)
                raise ConfigError(
                    f"model.chat_template=default: this tokenizer has several chat templates ({names}), and none is "
                    "its default; write the one you mean to a file and give its path."
                ) from error
        if not Path(str(choice)).is_file():
            raise ConfigError(
                f"model.chat_template={choice} is not a file; give null, none, default, or the path of a Jinja file."
            )
        try:
            return Path(str(choice)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"model.chat_template={choice} cannot be read: {error}.") from error

    @cached_property
    def _least_thinking(self) -> dict[str, Any]:
        """The arguments by which the template leaves thinking out, or asks for the least; none that change nothing."""
        if self.source is None:
            return {}
        asked = [{"role": "user", "content": PLACEHOLDER}]
        for name in _SWITCHES:
            if re.search(rf"\b{name}\b", self.source):
                try:
                    off, on = (
                        self.render(asked, add_generation_prompt=True, told={name: value})
                        for value in (False, True)
                    )
                except TemplateFailure:
                    continue
                if off != on:
                    return {name: False}
        return {_EFFORT: "low"} if _EFFORT in self.source and HARMONY.open in self.source else {}

    def thought_before(self, text: str) -> Marks | None:
        """The marks of the thought that a prompt has begun, so that what comes first is no answer; None for most."""
        return open_in(text, self.marks)

    def closed(self, text: str) -> str:
        """A prompt behind which an answer stands at once: the thought that would come first is left out."""
        begun = self.thought_before(text)
        if begun is not None:
            return begun.closed(text)
        if self.source is None or (self._least_thinking and not self._is_on):
            return text
        thinks = next((marks for marks in self.marks if marks.close in self.source), None)
        if thinks is None or thinks is HARMONY or text.rstrip().endswith(thinks.close):
            return text
        return thinks.closed(text)

    @property
    def _is_on(self) -> bool:
        """Whether thinking was asked for."""
        return any(self._given.get(name) for name in self._least_thinking)

    @cached_property
    def end_of_turn(self) -> tuple[int, ...]:
        """The special token that ends the assistant's turn, or that the next turn begins with; none in plain text."""
        if self.source is None:
            return ()
        said = [("user", "A"), ("assistant", PLACEHOLDER), ("user", "B")]
        try:
            text = self.render([{"role": role, "content": content} for role, content in said])
        except TemplateFailure:
            return ()
        after = text[text.rfind(PLACEHOLDER) + len(PLACEHOLDER) :]
        ids: list[int] = self._tokenizer(after, add_special_tokens=False)["input_ids"]
        special = set(self._tokenizer.all_special_ids) | {
            token for token, added in self._tokenizer.added_tokens_decoder.items() if added.special
        }
        return next(((token,) for token in ids if token in special), ())

    def notes(self) -> Iterator[str]:
        """What a result says of how the template was used."""
        if self.source is None:
            for name in self._given:
                yield (
                    f"no chat template is used, so that model.template_kwargs.{name} changes nothing "
                    "(model.chat_template=default is the tokenizer's own)"
                )
            return
        if self._is_dated:
            day = self._variables["date_string"]
            yield f"the chat template is told the day {day} (model.template_kwargs.date_string)"
        for name in self._given:
            if name != "date_string" and not re.search(rf"\b{re.escape(name)}\b", self.source):
                yield f"the chat template does not ask for model.template_kwargs.{name}, which changes nothing"
        for name, value in self._least_thinking.items():
            if name not in self._given:
                asked = "thinking is switched off" if value is False else "the least thinking is asked for"
                yield f"{asked} (model.template_kwargs.{name}={str(value).lower()}, unless you give another)"

    def __call__(self, prompt: str) -> str:
        """The text the model reads for a user's prompt.

        Raises:
            ConfigError: the template is not valid, or refuses such a conversation.
        """
        return prompt if self.source is None else self.of_turns([{"role": "user", "content": prompt}])

    def of_turns(self, messages: Sequence[Mapping[str, str]], prefill: str | None = None) -> str:
        """The text the model reads for a conversation that it goes on with.

        A system turn stands on top of the user's first where the template takes none (Gemma 2), hides it, or puts it
        behind the examples (Mistral).

        Args:
            messages: the last one is the user's.
            prefill: what the assistant's turn begins with; None: nothing.

        Raises:
            ConfigError: the template is not valid, or refuses such a conversation.
        """
        text, _ = self._of_turns(messages, prefill)
        if messages[-1]["content"].strip() not in text:
            raise ConfigError(
                f"model.chat_template={self._choice} does not show the user's words as they are; give another "
                "template, or ask in plain text with model.chat_template=none."
            )
        if not _in_order([message["content"].strip() for message in messages], text):
            raise ConfigError(
                f"model.chat_template={self._choice} leaves out turns before the user's last, or moves or alters them; "
                "give another template, or show no examples as turns: prompt.num_few_shot=0, or prompt.turns=false."
            )
        return text

    def moves_system(self, messages: Sequence[Mapping[str, str]], prefill: str | None = None) -> bool:
        """Whether `of_turns` puts a system turn on top of the user's first."""
        return self._of_turns(messages, prefill)[1]

    def _of_turns(self, messages: Sequence[Mapping[str, str]], prefill: str | None) -> tuple[str, bool]:
        system, *others = messages
        if system["role"] != "system":
            return self._continued(messages, prefill), False
        first = {**others[0], "content": f"{system['content']}\n\n{others[0]['content']}"}
        try:
            text = self._continued(messages, prefill)
        except ConfigError:
            return self._continued([first, *others[1:]], prefill), True
        place = text.find(system["content"].strip())
        if 0 <= place <= text.find(others[0]["content"].strip()):
            return text, False
        return self._continued([first, *others[1:]], prefill), True

    def _continued(self, messages: Sequence[Mapping[str, str]], prefill: str | None) -> str:
        try:
            text = self.render(messages, add_generation_prompt=True)
            if prefill is None:
                return text
            if self.thought_before(text) is not None:
                return self.closed(text) + prefill
            begun = [*messages, {"role": "assistant", "content": prefill}]
            return self.render(begun, continue_final_message=True)
        except TemplateFailure as error:
            raise ConfigError(f"model.chat_template={self._choice} cannot be rendered: {error}") from error

    def render(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        told: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of messages by the template, which must be there; ``told`` goes before all other arguments.

        Raises:
            TemplateFailure: the template is not valid, or refuses such a conversation.
        """
        said: list[dict[str, Any]] = [dict(message) for message in messages]
        if self._takes_parts:
            said = [{**message, "content": _part(message["content"])} for message in said]
        return self._apply(said, add_generation_prompt, continue_final_message, told or {})

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether a content is shown as a list of parts alone: templates of image-text models drop a mere text."""

        def shows(content: Any) -> bool:
            asked = [{"role": "user", "content": content}]
            try:
                return PLACEHOLDER in self._apply(asked, True, False, {})
            except TemplateFailure:
                return False

        return not shows(PLACEHOLDER) and shows(_part(PLACEHOLDER))

    def _apply(
        self,
        messages: list[dict[str, Any]],
        add_generation_prompt: bool,
        continue_final_message: bool,
        told: Mapping[str, Any],
    ) -> str:
        from jinja2 import TemplateError

        try:
            rendered = self._tokenizer.apply_chat_template(
                messages,
                chat_template=self.source,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tokenize=False,
                **{**self._variables, **told},
            )
        except (TemplateError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise TemplateFailure(str(error) or type(error).__name__) from error  # it is a program of its own
        return str(rendered)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts; a rendered template brings its own special tokens, plain text gets the tokenizer's."""
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=self.source is None)[
            "input_ids"
        ]
        return ids


def _in_order(parts: Sequence[str], text: str) -> bool:
    """Whether parts stand in a text one after the other."""
    place = 0
    for part in parts:
        found = text.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return True


def _part(text: str) -> list[dict[str, str]]:
    """A text as a content of parts."""
    return [{"type": "text", "text": text}]


def with_fixed_day(source: str, date_string: str) -> str:
    """A template in which every ``strftime_now("...")`` is the fixed day; transformers takes no function for it.

    Raises:
        ConfigError: the day is none, or the template asks for the time in a way that cannot be fixed.
    """
    try:
        day = datetime.strptime(date_string, _DATE_FORMAT)
    except ValueError as error:
        raise ConfigError(
            f"model.template_kwargs.date_string={date_string} is no date; write it as {DATE_STRING}."
        ) from error
    fixed = _NOW.sub(lambda call: json.dumps(day.strftime(call["form"])), source)
    if _ASKS_TIME.search(fixed):
        raise ConfigError(
            "the chat template computes how it asks for the time (strftime_now), so that the same "
            "prompt could differ from day to day; give a template that does not with model.chat_template=<file>."
        )
    return fixed
