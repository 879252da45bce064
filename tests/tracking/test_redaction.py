"""No secret survives `redact`, and nothing else is touched."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probegrid.tracking.redaction import HIDDEN, redact, redact_command

SECRETS = st.text(string.ascii_uppercase, min_size=20, max_size=40)
"""In capitals, so that nothing else a test draws can hold one by chance."""
SECRET_KEYS = st.sampled_from(
    ["token", "hf_token", "HF_TOKEN", "tracking_password", "mySecret", "api_key", "auth_tokens"]
)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(string.ascii_lowercase + " .,-_/"),
)
NAMES = st.sampled_from(["path", "num_samples", "max_new_tokens", "tokenizer", "seed", "tokens_per_s"])
TREES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
)


@given(tree=TREES)
def test_what_holds_no_secret_is_unchanged(tree: object) -> None:
    assert redact(tree) == tree


@given(tree=TREES, key=SECRET_KEYS, secret=SECRETS, as_list=st.booleans())
def test_a_secret_key_is_hidden_wherever_it_stands(
    tree: object, key: str, secret: str, as_list: bool
) -> None:
    content = [secret, {"value": secret}] if as_list else secret
    assert secret not in json.dumps(redact({"a": [tree, {"b": {key: content}}]}))


@given(before=st.text(), secret=SECRETS, after=st.text())
def test_a_hub_token_is_hidden_in_any_text(before: str, secret: str, after: str) -> None:
    assert f"hf_{secret}" not in redact(f"{before} hf_{secret} {after}")


@given(
    user=st.text(string.ascii_lowercase), password=SECRETS, tail=st.sampled_from(["", "@", "/x", "@/:", "'"])
)
def test_the_password_of_a_uri_is_hidden(user: str, password: str, tail: str) -> None:
    secret = password if tail == "'" else password + tail
    shown = redact(f"cannot open postgresql://{user}:{secret}@host:5432/db")
    assert password not in shown
    assert shown.endswith("@host:5432/db")


@given(value=st.recursive(st.text(), lambda inner: st.dictionaries(st.text(), inner, max_size=2)))
def test_redacting_twice_changes_nothing_more(value: object) -> None:
    assert redact(redact(value)) == redact(value)


@given(left=st.text(string.ascii_letters), right=st.text(string.ascii_letters))
def test_the_value_of_a_secret_variable_is_hidden_anywhere(left: str, right: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "0000-Correct-Horse")
        assert redact([f"{left}0000-Correct-Horse{right}"]) == [f"{left}{HIDDEN}{right}"]


def test_a_short_value_of_a_secret_variable_is_hidden_as_a_word_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "beef1")
    assert redact("beef1 is wrong: a0beef12") == f"{HIDDEN} is wrong: a0beef12"


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///mlflow.db",
        "https://huggingface.co/a/b@main",
        "decoding.max_new_tokens=50",
        "hf_quantizer and hf_hub_download",
        "tokens = tokenizer(text)",
    ],
)
def test_ordinary_text_is_let_be(text: str) -> None:
    assert redact(text) == text


def test_numbers_of_tokens_stay_and_numeric_passwords_go() -> None:
    given = {"max_token": 5, "token": None, "password": 1234, "use_secret": True}
    assert redact(given) == {"max_token": 5, "token": None, "password": HIDDEN, "use_secret": True}


@given(secret=st.text(string.ascii_uppercase + " ,;=:/@{}[]$\n", min_size=8))
def test_a_command_line_hides_overrides_and_options(secret: str) -> None:
    shown = redact_command(["probegrid", f"tracking.password={secret}", "--token", secret, "seed=1"])
    assert secret not in shown
    assert shown.startswith("probegrid ")
    assert shown.endswith(" seed=1")


def test_a_command_line_keeps_counts() -> None:
    assert redact_command(["probegrid", "decoding.max_new_tokens=5"]) == "probegrid decoding.max_new_tokens=5"
