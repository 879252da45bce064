"""Which names say that what they name is a secret: of a key, an environment variable, a URL's parameter.

``hf_token``, ``dbPassword`` and ``api_key`` do. The tokens of a language model do not (``max_new_tokens``,
``eos_token``, ``first_token_entropy_auroc``), nor do paths of secrets (``HF_TOKEN_PATH``).
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_UNMISTAKABLE = re.compile(
    r"password|passwd|passphrase|secret|credential|authorization"
    r"|(?:api|access|account|private|signing|encryption|ssh)_?key|(?:api|auth|access|refresh|bearer)_?tokens"
)
_OF_LANGUAGE_MODELS = frozenset(
    {
        "additional",
        "answer",
        "begin",
        "bos",
        "cls",
        "count",
        "decoded",
        "end",
        "ended",
        "eos",
        "extra",
        "final",
        "first",
    }
    | {
        "generated",
        "image",
        "input",
        "last",
        "len",
        "length",
        "mask",
        "max",
        "min",
        "n",
        "new",
        "next",
        "num",
        "of",
    }
    | {
        "output",
        "pad",
        "per",
        "position",
        "previous",
        "prompt",
        "sample",
        "sep",
        "special",
        "start",
        "stop",
        "sub",
    }
    | {"target", "text", "think", "total", "unk", "vocab", "word"}
)
"""What comes before the tokens of a language model."""
_NOT_THE_SECRET_ITSELF = frozenset(
    {
        "path",
        "file",
        "dir",
        "folder",
        "url",
        "uri",
        "host",
        "endpoint",
        "name",
        "type",
        "ttl",
        "expiry",
        "timeout",
    }
)
_IN_A_QUERY = frozenset(
    {
        "auth",
        "code",
        "key",
        "pass",
        "passwd",
        "password",
        "policy",
        "pwd",
        "secret",
        "session",
        "sig",
        "sign",
        "signature",
    }
    | {"signed", "ticket", "token"}
)


def names_secret(name: str) -> bool:
    """Whether a key of this name holds a secret.

    >>> [names_secret(name) for name in ("hf_token", "trackingPassword", "n_tokens", "first_token_entropy_auroc")]
    [True, True, False, False]
    """
    words = _words(name)
    if not words or words[-1] in _NOT_THE_SECRET_ITSELF:
        return False
    return _UNMISTAKABLE.search("_".join(words)) is not None or _ends_in_token(words)


def names_token_only(name: str) -> bool:
    """Whether a secret's name is in doubt: a number under it is a count of a language model's tokens."""
    return _UNMISTAKABLE.search("_".join(_words(name))) is None


def names_secret_variable(name: str) -> bool:
    """Whether an environment variable of this name holds a secret: those of language models are called otherwise."""
    words = _words(name)
    return names_secret(name) or ("token" in words and words[-1] not in _NOT_THE_SECRET_ITSELF)


def names_secret_in_query(name: str) -> bool:
    """Whether a parameter of a URL lets its bearer in (``sig``, ``X-Amz-Signature``, ``access_token``)."""
    words = _words(name)
    return names_secret(name) or (bool(words) and words[-1] in _IN_A_QUERY and not _of_language_model(words))


def _ends_in_token(words: list[str]) -> bool:
    named = words[:-1] if words[-1].isdigit() and len(words) > 1 else words
    last = named[-1]
    if not last.endswith("token") or _of_language_model(named):
        return False
    return last.removesuffix("token") not in _OF_LANGUAGE_MODELS


def _of_language_model(words: list[str]) -> bool:
    return len(words) > 1 and words[-2] in _OF_LANGUAGE_MODELS


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name.rpartition(".")[2])]
