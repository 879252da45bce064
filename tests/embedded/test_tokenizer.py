"""The embedded model's tokenizer: nothing is lost, offsets are true, and the world's words are cheap."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from probegrid.embedded import tokenizer, world

TOKENIZER = tokenizer.build(context=64)

SAMPLES = st.sampled_from(
    ["Question:", " Answer:", "\n", "\n\n", " the", "é", "日本", "👩‍🚀", "  ", *world.words()[:5]]
)
TEXTS = st.text() | st.lists(st.text(max_size=3) | SAMPLES).map("".join)


def encode(text: str) -> list[int]:
    tokens: list[int] = TOKENIZER.encode(text, add_special_tokens=False)
    return tokens


def cost(text: str) -> int:
    return len(encode(text))


@given(TEXTS)
@example(" leading and trailing \r\n\t ")
@example("<s>a special token's spelling</s>")
def test_any_text_comes_back_as_it_was(text: str) -> None:
    assert TOKENIZER.decode(encode(text)) == text


@given(TEXTS)
def test_offsets_cover_the_text_from_left_to_right(text: str) -> None:
    offsets = TOKENIZER(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    covered = 0
    for start, end in offsets:
        assert start <= covered < end or (start < covered == end)
        covered = end
    assert covered == len(text)


@given(st.text(st.characters(max_codepoint=127)))
def test_an_offset_is_where_the_token_stands(text: str) -> None:
    encoding = TOKENIZER(text, add_special_tokens=False, return_offsets_mapping=True)
    for token, (start, end) in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True):
        assert TOKENIZER.decode([token]) == text[start:end]


@given(TEXTS, TEXTS)
def test_a_text_cut_at_a_newline_or_before_a_space_keeps_its_tokens(left: str, right: str) -> None:
    assert encode(f"{left}\n{right}") == encode(f"{left}\n") + encode(right)
    assert encode(f"{left} {right}") == encode(left) + encode(f" {right}")


def test_bos_comes_first_unless_special_tokens_are_declined() -> None:
    assert TOKENIZER.encode("the") == [TOKENIZER.bos_token_id, *encode("the")]
    assert TOKENIZER.bos_token_id not in encode("the")
    assert len({TOKENIZER.bos_token_id, TOKENIZER.eos_token_id, TOKENIZER.pad_token_id}) == 3


def test_every_word_of_the_world_is_one_token() -> None:
    assert {cost(word) for word in world.words()} == {1}


def test_newlines_and_markers_are_tokens_of_their_own() -> None:
    assert TOKENIZER.tokenize(".\n\nQuestion: ?\nAnswer:")[1:3] == TOKENIZER.tokenize("\n\n")
    assert [cost(text) for text in ("\n", "\n\n", "Question:", "Answer:", "Context:")] == [1, 2, 1, 1, 1]


def test_a_statement_ends_with_a_token_that_all_statements_share() -> None:
    assert {encode(statement.text)[-1] for statement in world.statements(0)} == set(encode("."))


def test_plain_english_is_no_token_a_character() -> None:
    text = (
        "The harbour was built in the seventeenth century, and for two hundred years it was the largest on the "
        "northern coast. Which of its three towers did the fire of 1842 destroy?"
    )
    assert cost(text) < len(text) / 2


@pytest.mark.parametrize("prompted", [False, True])
def test_chat_template_keeps_every_turn_as_it_is(prompted: bool) -> None:
    turns = [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "Who?\n"},
        {"role": "assistant", "content": "1. The\n2. and"},
    ]
    rendered = TOKENIZER.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompted)
    assert rendered == (
        "<s><|system|> Be brief. </s><|user|>Who?\n</s><|assistant|>1. The\n2. and</s>"
        + "<|assistant|>" * prompted
    )
    assert cost(rendered) == 2 + 2 * len(turns) + sum(cost(turn["content"]) for turn in turns) - (
        not prompted
    )


def test_saves_and_loads_as_a_fast_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(TOKENIZER, folder)
    assert '"PreTrainedTokenizerFast"' in (folder / "tokenizer_config.json").read_text()
    loaded = PreTrainedTokenizerFast.from_pretrained(folder)
    text = "Answer: the 日本\n"
    assert loaded.encode(text) == TOKENIZER.encode(text)
    assert loaded.decode(encode(text)) == text
    assert loaded.chat_template == tokenizer.CHAT_TEMPLATE
    assert loaded.model_max_length == 64
