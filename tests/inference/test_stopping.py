"""Where an answer ends: the policy's hard cases, and any text cut into any pieces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from probegrid.embedded import tokenizer
from probegrid.inference.stopping import Ending, StopRule

STOPS = ("\n", "\n\n", "Question:", "Context:")
EOS = -1


class Pieces:
    """A byte-level tokenizer: a token is any piece of UTF-8, the end of the sequence is no text."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = pieces

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return b"".join(self.pieces[token] for token in token_ids if token != EOS).decode(errors="replace")


def end(
    pieces: Sequence[bytes], *, eos: bool = False, stops: Sequence[str] = STOPS, **policy: bool
) -> Ending | None:
    """Generate the pieces one by one until the rule ends the answer; None if it never does."""
    rule = StopRule(Pieces(pieces), stops, [EOS], **policy)
    tokens = [*range(len(pieces)), *([EOS] if eos else [])]
    return next(filter(None, (rule.ending(tokens[:count]) for count in range(1, len(tokens) + 1))), None)


@pytest.mark.parametrize(
    ("pieces", "kept", "text"),
    [
        ([b" Paris", b"\n"], 1, "Paris"),
        ([b" Paris", b".\n"], 2, "Paris."),
        ([b" Paris", b".\n\n"], 2, "Paris."),
        ([b" Paris", b" \n"], 1, "Paris"),
        ([b" Paris", b" ", b"\n"], 2, "Paris"),
        ([b"\n", b"Paris", b"\n"], 2, "Paris"),
        ([b" \n\n", b" ", b"Paris", b".\n"], 4, "Paris."),
        ([b"\n\n", b"Question", b":"], 1, ""),
        ([b"\n\nQuestion:"], 0, ""),
        ([b" Paris", b" Quest", b"ion", b":"], 1, "Paris"),
        ([b" Paris.", b"Quest", b"ion:", b" Who"], 1, "Paris."),
        ([b" Paris. Q", b"uestion:"], 1, "Paris. "[:-1]),
        ([b" \xe2", b"\x82", b"\xac", b"\n"], 3, "€"),
        ([b" 5\xe2", b"\x82\xac\n"], 2, "5€"),
        ([b" half \xe2", b"\n"], 1, "half \ufffd"),
    ],
)
def test_tokens_before_the_stop_are_kept_and_one_that_holds_text_and_the_stop(
    pieces: list[bytes], kept: int, text: str
) -> None:
    assert end(pieces) == Ending(kept, text, "stop")


def test_white_space_before_an_answer_is_not_its_end() -> None:
    assert end([b"\n", b" \n\n", b"\t"]) is None
    assert end([b"\n", b" \n"], eos=True) == Ending(2, "", "eos")
    # a stop that begins in the white space and holds more is one
    assert end([b"\n\n", b"Q", b":"], stops=["\n\nQ:"]) == Ending(0, "", "stop")
    assert end([b"\n\n", b"Q", b":"], stops=["\nQ:"]) == Ending(0, "", "stop")
    assert end([b"\n\n", b"Q", b":\n"], stops=["\n", "Q:"]) == Ending(1, "", "stop")


def test_marks_that_are_special_tokens_end_a_thought_where_they_are_shown() -> None:
    class Special(Pieces):
        def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
            shown = [token for token in token_ids if not (skip_special_tokens and token == 1)]
            return super().decode(shown, skip_special_tokens=False)

    pieces = Special([b"hm", b"[/THINK]"])
    assert StopRule(pieces, ["[/THINK]"], [EOS]).ending([0, 1]) is None
    shown = StopRule(pieces, ["[/THINK]"], [EOS], count_stop=True, shows_special=True)
    assert shown.ending([0, 1]) == Ending(2, "hm", "stop")


@pytest.mark.parametrize(
    ("pieces", "text"), [([b" Paris"], "Paris"), ([], ""), ([b" ", b"Paris", b" "], "Paris")]
)
def test_the_end_of_the_sequence_is_not_part_of_the_answer(pieces: list[bytes], text: str) -> None:
    assert end(pieces, eos=True) == Ending(len(pieces), text, "eos")


def test_count_stop_counts_every_token_of_the_stop() -> None:
    assert end([b" Paris", b"\n"], count_stop=True) == Ending(2, "Paris", "stop")
    assert end([b" Paris", b" Quest", b"ion:"], count_stop=True) == Ending(3, "Paris", "stop")
    assert end([b" Paris"], eos=True, count_stop=True) == Ending(2, "Paris", "eos")


def test_a_stop_that_ends_in_the_bytes_of_a_character_is_found() -> None:
    assert end([b"Tokyo", b"\xe3\x80", b"\x82"], stops=["。"]) == Ending(1, "Tokyo", "stop")


def test_an_answer_without_a_stop_is_cut_short_with_all_its_tokens() -> None:
    rule = StopRule(Pieces([b" one", b" two "]), STOPS, [EOS])
    assert rule.ending([0, 1]) is None
    assert rule.cut_short([0, 1]) == Ending(2, "one two", "length")


def test_the_embedded_tokenizer_ends_at_its_newline_and_at_its_end_of_sequence() -> None:
    vocabulary = tokenizer.build(context=64)
    rule = StopRule(vocabulary, STOPS, [vocabulary.eos_token_id])
    answer = vocabulary.encode(" zither", add_special_tokens=False)
    newline = vocabulary.encode("\n", add_special_tokens=False)
    assert rule.ending(answer) is None
    assert rule.ending([*answer, *newline]) == Ending(len(answer), "zither", "stop")
    assert rule.ending([*answer, vocabulary.eos_token_id]) == Ending(len(answer), "zither", "eos")


def cut(data: bytes, marks: set[int]) -> list[bytes]:
    edges = [0, *sorted(mark for mark in marks if 0 < mark < len(data)), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges) if start < stop]


TEXTS = st.lists(st.sampled_from([*"ab é€\u3000👩.:\n", "Question:", "Question", "a.", "é€"])).map("".join)


@given(
    TEXTS, st.sets(st.integers(0, 60)), st.sets(st.sampled_from(["\n", "\n\n", "Question:", "a.", "€", "é€"]))
)
@example("5€\n", {1, 2, 3}, {"\n"})
def test_any_text_in_any_pieces_ends_at_its_first_stop(text: str, marks: set[int], stops: set[str]) -> None:
    pieces = cut(text.encode(), marks)
    found = end(pieces, stops=sorted(stops))
    seen = [b"".join(pieces[: count + 1]).decode(errors="replace") for count in range(len(pieces))]
    last = next((so_far for so_far in seen if any(places(so_far, stop) for stop in stops)), None)
    if last is None:
        assert found is None
        return
    begin = min(place for stop in stops for place in places(last, stop))
    assert found == Ending(count_kept(pieces, text, begin), text[:begin].strip(), "stop")


def places(text: str, stop: str) -> list[int]:
    """Where a stop stands in a text, not all of it in the white space that the text begins with."""
    return [
        place
        for place in range(len(text))
        if text.startswith(stop, place) and text[: place + len(stop)].strip()
    ]


def count_kept(pieces: list[bytes], text: str, begin: int) -> int:
    """Count the pieces before character ``begin``, and one that holds it and part of a visible character before it."""
    owner = [index for index, piece in enumerate(pieces) for _ in piece]
    spans = []
    for character in text[: begin + 1]:
        first = spans[-1][1] if spans else 0
        spans.append((first, first + len(character.encode()), character))
    stop_piece = owner[spans[begin][0]]
    straddles = any(
        owner[last - 1] == stop_piece and not character.isspace() for _, last, character in spans[:begin]
    )
    return stop_piece + straddles
