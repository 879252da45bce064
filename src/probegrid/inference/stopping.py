"""Where an answer ends, decided on generated token ids.

Knows a tokenizer's decoding and stop strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_INCOMPLETE = "\ufffd"
"""What the bytes of half a character decode to."""


class Decodes(Protocol):
    """The part of a tokenizer that is needed here."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> Any:
        """Text of the tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Ending:
    """How an answer ended."""

    kept: int
    """Tokens of the answer: those before the stop, and a token that holds text and the stop (``.\\n``)."""
    text: str
    """The answer's text, up to the stop, without surrounding white space."""
    by: str
    """``eos``: an end-of-sequence token; ``stop``: a stop string; ``length``: the largest number of tokens."""


class StopRule:
    """Ends an answer at an end-of-sequence token or at the first of several strings.

    The white space that an answer begins with is not its end: models of conversations often begin a line first.
    ``count_stop`` makes the tokens of the stop itself part of ``kept``; ``shows_special`` takes special tokens as text,
    by which thoughts are marked.
    """

    def __init__(
        self,
        tokenizer: Decodes,
        stop_strings: Sequence[str],
        eos_ids: Sequence[int],
        *,
        count_stop: bool = False,
        shows_special: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stop_strings)
        self._eos = frozenset(eos_ids)
        self._count_stop = count_stop
        self._shows_special = shows_special
        self._last_characters = frozenset(stop[-1] for stop in stop_strings)
        self._may_complete = cache(self._holds_last_character)

    def may_end(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some rows' newest tokens [B] may end them: ``ending`` decides of those; the others go on."""
        distinct, row = np.unique(tokens, return_inverse=True)
        found = [token in self._eos or self._may_complete(token) for token in distinct.tolist()]
        return np.array(found, dtype=np.bool_)[row]

    def ending(self, token_ids: Sequence[int]) -> Ending | None:
        """Tell whether the newest token ends the answer.

        Args:
            token_ids: all generated tokens so far, at least one.

        Returns:
            The ending, or None if generation goes on.
        """
        if token_ids[-1] in self._eos:
            return Ending(len(token_ids) - (not self._count_stop), self._text(token_ids[:-1]).strip(), "eos")
        if not self._may_complete(token_ids[-1]):
            return None
        text = self._text(token_ids)
        said = len(text) - len(text.lstrip())
        # one that ends in the leading white space is none; one that begins there and ends behind it is
        begins = [text.find(stop, max(0, said - len(stop) + 1)) for stop in self._stops]
        begins = [begin for begin in begins if begin >= 0]
        if not begins:
            return None
        kept = len(token_ids) if self._count_stop else self._tokens_before(token_ids, text, min(begins))
        return Ending(kept, text[: min(begins)].strip(), "stop")

    def cut_short(self, token_ids: Sequence[int]) -> Ending:
        """The ending of an answer that reached the largest number of tokens without a stop."""
        return Ending(len(token_ids), self._text(token_ids).strip(), "length")

    def _tokens_before(self, token_ids: Sequence[int], text: str, begin: int) -> int:
        """Count the tokens before character ``begin``, where the stop begins, and one that holds text and the stop."""
        # searched from the end: a token may be a byte, and the first bytes of a character decode to as much text as all
        before = ((count, self._text(token_ids[:count])) for count in reversed(range(len(token_ids))))
        count, sure = next((count, part) for count, part in before if len(part) <= begin)
        if not text.startswith(sure):
            sure = sure.rstrip(_INCOMPLETE)  # the next token ends a character, which is its text
        return count + (text[len(sure) : begin].strip() != "")

    def _holds_last_character(self, token_id: int) -> bool:
        text = self._text([token_id])
        return _INCOMPLETE in text or not self._last_characters.isdisjoint(text)

    def _text(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=not self._shows_special))
