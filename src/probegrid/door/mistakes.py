"""What Hydra and OmegaConf raise, as one sentence: what was given, what is allowed, the closest match."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.config_source import ConfigSource
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from probegrid.door.keys import fields_of
from probegrid.door.places import PLACED
from probegrid.door.yaml_files import place_of
from probegrid.errors import ConfigError, closest

_IN_A_FILE = re.compile(r"In '(?P<config>[^']+)': (?P<kind>\w+) raised while composing config:\n(?P<what>[^\n]*)")
_UNKNOWN_KEY = re.compile(r"Key '(?P<key>[^']+)' not in '(?P<owner>\w+)'")
_FULL_KEY = re.compile(r"full_key: (?P<key>\S+)")


@contextmanager
def user_errors(sources: Sequence[ConfigSource] = ()) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into one sentence for the user.

    Args:
        sources: where Hydra looks for YAML files, to name the one that is wrong.

    Raises:
        ConfigError: with the sentence.
    """
    try:
        yield
    except MissingConfigException as error:
        raise ConfigError(_unknown_choice(error, sources)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_sentence(error, sources)) from error
    except ValueError as error:
        if "Config group override must be" not in str(error):  # all that Hydra says of model=null
            raise
        raise ConfigError("a group is chosen by its name, group=name; it cannot be null.") from error


def missing_key(error: Exception) -> tuple[str, str] | None:
    """The key of an override that the composed config lacks, and the dataclass it is not in; None for other errors."""
    override = re.search(r"Could not override '([\w.]+)'\.", str(error))
    unknown = _UNKNOWN_KEY.search(f"{error} {error.__cause__}")
    return (override[1], unknown["owner"]) if override and unknown else None


def no_such_key(key: str, names: Sequence[str]) -> str:
    """The sentence for a key that is none, of the keys that its part of the config has."""
    return f"the config has no key {key}; {closest(key.rpartition('.')[2], dict.fromkeys(names))}."


def _sentence(error: Exception, sources: Sequence[ConfigSource]) -> str:
    return (
        _syntax(error)
        or _no_grid(error)
        or _in_a_file(error, sources)
        or _unknown_key(error)
        or _wrong_value(error)
        or _one_line(error)
    )


def _unknown_choice(error: MissingConfigException, sources: Sequence[ConfigSource]) -> str:
    missing, options = error.missing_cfg_file or "", error.options
    group, _, name = missing.rpartition("/")
    parent = re.match(r"In '([^']+)': Could not (?:find|load) ", str(error))
    where = place_of(sources, parent[1], name) if parent and parent[1] != "config" else None
    if where is not None:
        return f"{where}: {missing} is not known; {closest(name, _options(sources, group))}."
    if not options:
        return _one_line(error).partition("; Config search path")[0]
    hint = f" (the folder or file of that name is {group}=./{name})" if _is_here(group, name) else ""
    return f"{group}={name} is not known; {closest(name, options)}{hint}."


def _is_here(group: str, name: str) -> bool:
    return group in PLACED and bool(name) and Path(name).exists()


def _options(sources: Sequence[ConfigSource], group: str) -> list[str]:
    found = [source.list(group, None) for source in sources if source.is_group(group)]
    return sorted({name for names in found for name in names})


def _syntax(error: Exception) -> str | None:
    if not isinstance(error, OverrideParseException):
        return None
    return (
        f"{error.override!r} is not an override; write group=name or key=value, and quote a value that holds commas, "
        "spaces or brackets: key='\"a, b\"'."
    )


def _no_grid(error: Exception) -> str | None:
    """Several values without ``-m``."""
    found = re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'", str(error))
    if found is None:
        return None
    key = found[1].partition("=")[0]
    return f"{found[1]} gives {key} several values; add -m to run a grid of them, or give one."


def _in_a_file(error: Exception, sources: Sequence[ConfigSource]) -> str | None:
    """A key or a value of a YAML file that the schema does not take."""
    found, key = _IN_A_FILE.search(str(error)), _FULL_KEY.search(str(error))
    if found is None or key is None:
        return None
    where = place_of(sources, found["config"], key["key"]) or f"in {found['config']}"
    unknown = _UNKNOWN_KEY.search(found["what"])
    if unknown is not None:
        return f"{where}: {no_such_key(key['key'], fields_of(unknown['owner']))}"
    return f"{where}: {key['key']} is not allowed: {found['what'].rstrip('.')}."


def _unknown_key(error: Exception) -> str | None:
    """A key of an override that is no field."""
    found = _UNKNOWN_KEY.search(f"{error} {error.__cause__}")
    if found is None:
        return None
    lacking = missing_key(error)
    return no_such_key(lacking[0] if lacking else found["key"], fields_of(found["owner"]))


def _wrong_value(error: Exception) -> str | None:
    override = re.search(r"Error merging override (.*)", str(error))
    enum = re.search(r"Invalid value '(.*)', expected one of \[(.*)\]", str(error.__cause__))
    if override is not None and enum is not None:
        return f"{override[1]} is not allowed; {closest(enum[1], enum[2].split(', '))}."
    if override is not None and error.__cause__ is not None:
        return f"{override[1]} is not allowed: {str(error.__cause__).splitlines()[0].rstrip('.')}."
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} must be given and is not; add {error.full_key}=<value>."
    return None


def _one_line(error: Exception) -> str:
    text = "; ".join(filter(None, (str(error), str(error.__cause__ or ""))))
    lines = [line.strip() for line in text.splitlines()]
    kept = [
        line
        for line in lines
        if line and not line.startswith(("full_key:", "object_type=", "reference_type="))
    ]
    return "; ".join(dict.fromkeys(kept))
