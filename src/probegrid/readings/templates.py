"""Chat templates: how messages become the text that a model of conversations was trained on.

Knows a tokenizer's own template, Jinja files, and what a template may ask for besides the messages. One that asks for
today's date gets a fixed one, so that every day's prompt is the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probegrid.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATE_STRING = "26 Jul 2024"
"""The date that templates are told, Llama 3's own default; ``model.template_kwargs.date_string`` says another."""
PLAIN, OWN = "none", "default"
_DATE_FORMAT = "%d %b %Y"
_NOW = re.compile(r"""strftime_now\(\s*(?P<quote>["'])(?P<form>[^"']*)(?P=quote)\s*\)""")


class TemplateFailure(Exception):
    """What a template said, or stumbled over."""


class ChatTemplate:
    """How a prompt is wrapped for a model that was trained on conversations; plain text where there is no template."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        choice: str | None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Choose the template.

        Args:
            tokenizer: the model's.
            choice: None or ``none`` for plain text, ``default`` for the tokenizer's own, else a Jinja file's path.
            kwargs: ``model.template_kwargs``.

        Raises:
            ConfigError: the tokenizer has no template of its own, the file is missing, or the date is none.
        """
        self._tokenizer = tokenizer
        self._choice = choice
        self._variables = {"date_string": DATE_STRING, **(kwargs or {})}
        source = self._find(choice)
        date_string = str(self._variables["date_string"])
        self.source = None if source is None else with_fixed_day(source, date_string)

    @classmethod
    def of_conversations(
        cls, tokenizer: PreTrainedTokenizerBase, choice: str | None, kwargs: Mapping[str, Any] | None = None
    ) -> ChatTemplate:
        """The template of conversations: where none is chosen, the tokenizer's own if it has one."""
        own = OWN if tokenizer.chat_template else None
        return cls(tokenizer, own if choice is None else choice, kwargs)

    def _find(self, choice: str | None) -> str | None:
        if choice in (None, PLAIN):
            return None
        if choice == OWN:
            if not self._tokenizer.chat_template:
                raise ConfigError(
                    "model.chat_template=default: this tokenizer has no chat template; use null or a file."
                )
            return str(self._tokenizer.get_chat_template())
        if not Path(str(choice)).is_file():
            raise ConfigError(
                f"model.chat_template={choice} is not a file; give null, none, default, or the path of a Jinja file."
            )
        return Path(str(choice)).read_text()

    def __call__(self, prompt: str) -> str:
        """The text the model reads for a user's prompt.

        Raises:
            ConfigError: the template is not valid, or refuses such a conversation.
        """
        if self.source is None:
            return prompt
        try:
            return self.render([{"role": "user", "content": prompt}], add_generation_prompt=True)
        except TemplateFailure as error:
            raise ConfigError(f"model.chat_template={self._choice} cannot be rendered: {error}") from error

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
        system, *others = messages
        if system["role"] != "system":
            return self._continued(messages, prefill)
        first = {**others[0], "content": f"{system['content']}\n\n{others[0]['content']}"}
        try:
            text = self._continued(messages, prefill)
        except ConfigError:
            return self._continued([first, *others[1:]], prefill)
        place = text.find(system["content"].strip())
        if 0 <= place <= text.find(others[0]["content"].strip()):
            return text
        return self._continued([first, *others[1:]], prefill)

    def _continued(self, messages: Sequence[Mapping[str, str]], prefill: str | None) -> str:
        try:
            if prefill is None:
                return self.render(messages, add_generation_prompt=True)
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
    ) -> str:
        """The text of messages by the template, which must be there.

        Raises:
            TemplateFailure: the template is not valid, or refuses such a conversation.
        """
        from jinja2 import TemplateError

        try:
            rendered = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=self.source,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tokenize=False,
                **self._variables,
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
    if "strftime_now(" in fixed:
        raise ConfigError(
            "the chat template computes the format in which it asks for the time (strftime_now), so that the same "
            "prompt could differ from day to day; give a template that does not with model.chat_template=<file>."
        )
    return fixed
