"""What a tokenizer sets around plain text: what its settings ask for, whatever loading made of them."""

from __future__ import annotations

from tokenizers import processors

from probegrid.embedded import tokenizer as embedded
from probegrid.models.special_tokens import set_as_configured

ASKS = {"add_bos_token": True}


def test_a_bos_that_loading_lost_is_set() -> None:
    lost = embedded.build(64)
    wanted = lost("Rome is")["input_ids"]
    lost.backend_tokenizer.post_processor = processors.ByteLevel()
    assert lost("Rome is")["input_ids"] == wanted[1:]
    set_as_configured(lost, {})
    assert lost("Rome is")["input_ids"] == wanted[1:]
    set_as_configured(lost, ASKS)
    assert lost("Rome is")["input_ids"] == wanted
    encoded = lost("Rome is", return_offsets_mapping=True)
    assert encoded["offset_mapping"][-1][1] == len("Rome is")
    assert lost("Rome is", add_special_tokens=False)["input_ids"] == wanted[1:]


def test_an_end_of_the_sequence_is_never_set_behind_a_prompt() -> None:
    ending = embedded.build(64)
    wanted = ending("Rome is")["input_ids"]
    ending.add_eos_token = True
    ending.add_bos_token = True
    assert ending("Rome is")["input_ids"] == [*wanted, ending.eos_token_id]
    set_as_configured(ending, {"add_bos_token": True, "add_eos_token": True})
    assert ending("Rome is")["input_ids"] == wanted


def test_what_is_right_is_left_as_it_is() -> None:
    right = embedded.build(64)
    before = right.backend_tokenizer.to_str()
    set_as_configured(right, ASKS)
    assert right.backend_tokenizer.to_str() == before
