"""No secret survives `redact`, and nothing else is touched."""

from __future__ import annotations

import json
import re
import string
import subprocess
from collections.abc import Callable

import hypothesis
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probegrid.tracking import redaction
from probegrid.tracking.redaction import (
    HIDDEN,
    redact,
    redact_command,
    redact_override,
    redact_words,
    redact_yaml,
    redacted_traceback,
    remember,
)

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


@pytest.mark.slow
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


PASSWORDS = st.tuples(
    st.text(string.ascii_uppercase, min_size=12, max_size=12),
    st.text(string.printable.replace("\n", "").replace("\r", "") + "äß", max_size=12),
    st.text(string.ascii_uppercase, min_size=12, max_size=12),
)
"""Whatever a password may hold (``@``, blanks, colons, quotes), between two parts that are looked for."""
PLACES = st.sampled_from(
    ["value", "override", "escaped", "quoted", "command", "yaml", "error", "traceback", "manifest"]
)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Nothing is remembered, and nothing stays so."""
    remembered: set[str] = set()
    monkeypatch.setattr(redaction, "_remembered", remembered)
    return remembered


def shown_in(place: str, uri: str) -> str:
    """A URI as it comes to light in a place, redacted."""
    override = f"tracking.uri={uri}"
    escaped = re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", uri)
    match place:
        case "value":
            return json.dumps(redact({"tracking": {"uri": uri}}))
        case "override":
            return redact_override(override)
        case "escaped":
            return redact_override(f"tracking.uri={escaped}")
        case "quoted":
            return redact_override(f'tracking.uri="{escaped}"')
        case "command":
            return redact_command(["probegrid", "seed=1", override])
        case "manifest":
            return json.dumps(redact_words(["probegrid", f"tracking.uri={escaped}"]))
    remember([override])
    match place:
        case "yaml":
            tracking = {"uri": uri, "backend": "mlflow"}
            return redact_yaml(yaml.safe_dump({"tracking": tracking, "overrides": [override, escaped]}))
        case "error":
            return redact(f"tracking.uri={uri} is not allowed: {uri!r}, escaped {escaped}; give another.")
        case _:
            try:
                json.loads(f"{{'uri': '{uri}'")
                raise ConnectionError(f"{uri} {escaped} {uri!r}")
            except ValueError as error:
                error.add_note(f"tried {uri} and {json.dumps(uri)}")
                return redacted_traceback(error)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(parts=PASSWORDS, place=PLACES)
def test_the_password_of_a_uri_comes_to_light_nowhere(
    forgetful: set[str], parts: tuple[str, str, str], place: str
) -> None:
    forgetful.clear()
    shown = shown_in(place, f"http://user:{''.join(parts)}@127.0.0.1:5000/x")
    assert parts[0] not in shown
    assert parts[2] not in shown
    assert "user" in shown
    assert "127.0.0.1" in shown


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    secret=st.text(string.ascii_uppercase + "%+-_.~", min_size=12),
    name=st.sampled_from(
        [
            "token",
            "access_token",
            "sig",
            "X-Amz-Signature",
            "X-Amz-Security-Token",
            "key",
            "api_key",
            "auth",
            "password",
        ]
    ),
    place=PLACES,
)
def test_what_lets_the_bearer_of_a_url_in_is_hidden(
    forgetful: set[str], secret: str, name: str, place: str
) -> None:
    forgetful.clear()
    shown = shown_in(place, f"https://host/data.jsonl?split=train&{name}={secret}&n=5")
    assert secret not in shown
    assert "split" in shown
    assert "n=5" in shown.replace("\\", "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    secret=st.text(string.ascii_uppercase + string.digits + " @:/'\"\\", min_size=8).filter(str.strip),
    key=SECRET_KEYS,
)
def test_a_secret_that_was_typed_is_hidden_wherever_it_turns_up(
    forgetful: set[str], secret: str, key: str
) -> None:
    forgetful.clear()
    hypothesis.assume(not re.fullmatch(r"[\d._]+\W*", secret))
    remember([f"hydra.launcher.extra.{key}={secret}"])
    assert secret not in redact(f"refused: <{secret}> by {[secret]}")
    assert secret not in redact_override(f"hydra.launcher.extra.{key}={secret}")


@pytest.mark.parametrize(
    "name",
    [
        "first_token_entropy_auroc", "max_new_tokens", "n_tokens", "tokens_per_s", "decoding.max_new_tokens",
        "token_ids", "token_logprobs", "eos_token", "pad_token", "bos_token_id", "num_token", "tokenizer",
        "HF_TOKEN_PATH", "secret_file", "key", "keys", "monkey", "author", "passage", "tokenization",
        "last_token", "count_stop",
    ],
)  # fmt: skip
def test_a_name_that_only_looks_like_a_secrets_is_let_be(name: str) -> None:
    text = f"{name}=some words; {name}: more"
    assert redact({name: "some words"}) == {name: "some words"}
    assert redact(text) == text
    assert redact_override(f"{name}=words") == f"{name}=words"


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "hf_token",
        "HF_TOKEN",
        "hfToken",
        "token2",
        "WANDB_API_KEY",
        "dbPassword",
        "client_secret",
        "AUTH_TOKENS",
    ],
)
def test_a_name_that_says_secret_hides_its_value(name: str) -> None:
    assert redact({name: "words"}) == {name: HIDDEN}
    assert redact(f"bad {name}=words!") == f"bad {name}={HIDDEN}"


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000 refuses; write to joe@host",
        "http://host:5000/x@y",
        "git clone ssh://git@host/repo",
        "https://host/x?split=train&max_tokens=5",
        "sqlite:////tmp/a@b/mlflow.db",
        "sk-learn-like-estimators-of-a-kind",
        "password: none given",
        "facts-none-gnll probe.layers=22",
    ],
)
def test_text_that_only_looks_secret_is_let_be(text: str) -> None:
    assert redact(text) == text


def test_a_short_word_that_was_a_password_is_not_hidden_everywhere(forgetful: set[str]) -> None:
    remember(["tracking.uri=http://user:test@host"])
    assert redact({"split": "test"}) == {"split": "test"}
    assert redact("http://user:test@host is down") == f"http://user:{HIDDEN}@host is down"


@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "HTTPS_PROXY"])
def test_the_password_of_a_uri_in_the_environment_is_hidden_anywhere(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "https://user:p%40ss phrase@host:1")
    assert redact("login 'p@ss phrase' or 'p%40ss phrase' failed") == f"login '{HIDDEN}' or '{HIDDEN}' failed"


def test_a_config_without_secrets_is_printed_as_it_is() -> None:
    text = "# @package tracking\nbackend: mlflow  # as is\nuri: sqlite:///mlflow.db\n"
    assert redact_yaml(text) == text
    shown = redact_yaml(text.replace("sqlite:///", "http://u:a b@"))
    assert shown == "# @package tracking\nbackend: mlflow\nuri: http://u:***@mlflow.db\n"


def test_an_exception_that_nobody_catches_is_printed_without_secrets(
    start_python: Callable[..., subprocess.Popen[str]],
) -> None:
    process = start_python(
        "import threading\nfrom probegrid.tracking.redaction import hide_in_tracebacks, remember\n"
        "hide_in_tracebacks(); remember(['x=http://u:pa ss wo@rd@h'])\n"
        "def fail(): raise ValueError('in a thread: pa ss wo@rd')\n"
        "thread = threading.Thread(target=fail); thread.start(); thread.join()\n"
        "raise ValueError('at last: pa ss wo@rd')"
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ValueError: in a thread: ***\n" in err
    assert "ValueError: at last: ***\n" in err
    assert "wo@rd" not in err
