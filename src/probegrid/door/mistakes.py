"""What Hydra and OmegaConf raise, as one sentence: what was given, what is allowed, the closest match."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.config_source import ConfigSource
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException

from probegrid.door.keys import GROUPS, is_known, keys_beside, keys_of
from probegrid.door.places import PLACED
from probegrid.door.yaml_files import file_of, place_of
from probegrid.errors import ConfigError, closest

_IN_A_FILE = re.compile(
    r"In '(?P<config>[^']+)': (?P<kind>\w+) raised while composing config:\n(?P<what>[^\n]*)"
)
_UNKNOWN_KEY = re.compile(r"Key '(?P<key>[^']+)' not in '(?P<owner>\w+)'")
_ADDED = re.compile(r"Could not override '([^']*)'.*use \+([^\n]*?)\s*$", re.DOTALL | re.MULTILINE)
_FULL_KEY = re.compile(r"full_key: (?P<key>\S+)")


HYDRAS_OWN_SLIPS = (AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What Hydra, composing, raises by accident where an override or a file is not what it expects."""


@contextmanager
def user_errors(sources: Sequence[ConfigSource] = (), words: Sequence[str] = ()) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into one sentence for the user.

    Args:
        sources: where Hydra looks for YAML files, to name the one that is wrong.
        words: what was typed, to tell it from what a preset says.

    Raises:
        ConfigError: with the sentence.
    """
    try:
        yield
    except MissingConfigException as error:
        raise ConfigError(_unknown_choice(error, sources, words)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_sentence(error, sources)) from error


@contextmanager
def composing() -> Iterator[None]:
    """Turn what Hydra raises by accident, while it does nothing but compose, into its own kind of error."""
    try:
        yield
    except HYDRAS_OWN_SLIPS as error:
        if "Config group override must be" in str(error):  # all that Hydra says of model=null
            raise ConfigError("a group is chosen by its name, group=name; it cannot be null.") from error
        what = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise ConfigError(
            f"this cannot be composed ({what}); compare each word with `probegrid --help`."
        ) from error


def missing_key(error: Exception) -> tuple[str, str] | None:
    """The key of an override that the composed config lacks, and the dataclass it is not in; None for other errors.

    Not for ``model={key: value}``, which is of several keys.
    """
    override = re.search(r"Could not override '([\w.]+)'\.", str(error))
    unknown = _UNKNOWN_KEY.search(f"{error} {error.__cause__}")
    if not override or not unknown or override[1].rpartition(".")[2] != unknown["key"]:
        return None
    return override[1], unknown["owner"]


def not_an_override(word: str) -> str:
    """The sentence for a word that is neither a flag nor an override."""
    return (
        f"{word!r} is not an override; write group=name or key=value, and quote a value that holds commas, spaces or "
        "brackets: key='\"a, b\"'."
    )


def not_global(file: object) -> str:
    """The sentence for a file whose values or choices would be those of a group's own name, and of no cell."""
    return f"{file} is of the whole config: begin it with the line `# @package _global_`."


def no_such_key(key: str, names: Sequence[str]) -> str:
    """The sentence for a key that is none.

    Args:
        key: as it was typed.
        names: the keys that its part of the config has.
    """
    names = list(dict.fromkeys(names))
    part, _, name = key.rpartition(".")
    beside = {other: choices for other, choices in keys_beside(key).items() if other not in names}
    if not difflib.get_close_matches(name, names, n=1):
        for other in difflib.get_close_matches(name, beside, n=1):
            having = f"{part.replace('hydra.', 'hydra/')}={' or '.join(beside[other])}"
            meant = "" if other == name else f"did you mean '{other}'? "
            return f"the config has no key {key}; {meant}{having} has it. Allowed: {', '.join(names)}."
    return (
        f"the config has no key {key}; {closest(name, names)}." if names else f"the config has no key {key}."
    )


def _sentence(error: Exception, sources: Sequence[ConfigSource]) -> str:
    return (
        _syntax(error)
        or _no_grid(error)
        or _no_such_group(error)
        or _no_choice(error)
        or _in_a_preset(error, sources)
        or _in_a_file(error, sources)
        or _unknown_key(error)
        or _new_key(error)
        or _wrong_value(error)
        or _one_line(error)
    )


def _unknown_choice(
    error: MissingConfigException, sources: Sequence[ConfigSource], words: Sequence[str]
) -> str:
    missing, options = error.missing_cfg_file or "", error.options
    group, _, name = missing.rpartition("/")
    parent = re.match(r"In '([^']+)': Could not (?:find|load) ", str(error))
    where = place_of(sources, parent[1], name) if parent and parent[1] != "config" else None
    if not any(word.startswith(f"{group}=") for word in words):
        presets = [word.replace("=", "/", 1) for word in words if word.startswith("experiment=")]
        where = where or next((place_of(sources, preset, name) for preset in presets), None)
    if where is not None:
        return f"{where}: {missing} is not known; {closest(name, _options(sources, group))}."
    if not group and not options:  # the root config
        preset = f"; the preset is experiment={name}" if name in _options(sources, "experiment") else ""
        return (
            f"--config-name {name} names no config{preset}; give a YAML file of --config-dir FOLDER whose defaults "
            "begin with ours, `- config`."
        )
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
    return not_an_override(error.override) if isinstance(error, OverrideParseException) else None


def _no_grid(error: Exception) -> str | None:
    """Several values without ``-m``."""
    found = re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'", str(error))
    if found is None:
        return None
    key = found[1].partition("=")[0]
    if key.startswith("report."):  # a report is one, of a grid too
        return f"{found[1]} gives {key} several values; give one, or where it filters a list: '{key}=[a,b]'."
    grid = "add -m to run a grid of them (in Python: probegrid.sweep)"
    return f"{found[1]} gives {key} several values; {grid}, or give one."


def _no_such_group(error: Exception) -> str | None:
    """A group that the defaults list lacks: one of the user's own, one a second time, or a root config without it."""
    found = _ADDED.match(str(error))
    if found is None or "default list" not in str(error):
        return None
    (group, at, _), word = found[1].partition("@"), found[2]
    if not is_known(group):
        return f"{word}: no cell has a group {group} by itself; add it with a plus, +{word}."
    if at:
        return f"{word}: every cell has one {group}; choose it by {group}=<name>."
    return f"the root config has no {group} among its defaults; list it there, `- {group}: <name>`, as ours does."


def _no_choice(error: Exception) -> str | None:
    """An interpolation in place of a group's choice."""
    found = re.match(r"Error resolving interpolation '(.*)', possible interpolation keys", str(error))
    if found is None:
        return None
    return (
        f"{found[1]} cannot choose a group, where only other groups' choices are known; let the shell fill it in, or "
        "give it to a key, such as dataset.path."
    )


def _in_a_preset(error: Exception, sources: Sequence[ConfigSource]) -> str | None:
    """A file that changes choices, ``experiment/mine``, and is not laid out as Hydra takes one."""
    said = str(error)
    twice = re.match(
        r"Multiple values for ([\w/]+)\. To override a value use 'override [\w/]+: ([^']*)'", said
    )
    if twice is not None:
        line = f"- override /{twice[1]}: {twice[2]}"
        return (
            f"{twice[1]} is chosen twice in the defaults lists; a file that changes a choice writes `{line}`."
        )
    if (found := re.match(r"In '([^']+)': Could not override '(\w+)(@?)", said)) is not None:
        config, group, is_elsewhere = found.groups()
        if is_elsewhere:
            return not_global(file_of(sources, config) or config)
        where = place_of(sources, config, group) or config
        return f"{where}: no cell has a group {group}; {closest(group, GROUPS)}."
    if (
        found := re.match(r"In '([^']+)': .*\n.*: str is not a subclass of \w+\. value: (.*)", said)
    ) is not None:
        where, line = file_of(sources, found[1]) or found[1], f"- override /GROUP: {found[2]}"
        return f"{where}: {found[2]} stands where a group has keys; choose it in its defaults, `{line}`."
    return None


def _in_a_file(error: Exception, sources: Sequence[ConfigSource]) -> str | None:
    """A key or a value of a YAML file that the schema does not take."""
    found, key = _IN_A_FILE.search(str(error)), _FULL_KEY.search(str(error))
    if found is None or key is None:
        return None
    where = place_of(sources, found["config"], key["key"]) or f"in {found['config']}"
    unknown = _UNKNOWN_KEY.search(found["what"])
    if unknown is not None:
        return f"{where}: {no_such_key(key['key'], keys_of(unknown['owner']))}"
    return f"{where}: {key['key']} is not allowed: {found['what'].rstrip('.')}."


def _unknown_key(error: Exception) -> str | None:
    """A key of an override that is no field."""
    found = _UNKNOWN_KEY.search(f"{error} {error.__cause__}")
    if found is None:
        return None
    full = _FULL_KEY.search(f"{error} {error.__cause__}")
    return no_such_key(full["key"] if full else found["key"], keys_of(found["owner"]))


def _new_key(error: Exception) -> str | None:
    """A key of a mapping of Hydra's, ``hydra.job.env_set.X``."""
    found = _ADDED.match(str(error))
    return None if found is None else f"the config has no key {found[1]}; add it with a plus, +{found[2]}."


def _wrong_value(error: Exception) -> str | None:
    override = re.search(r"Error merging override (.*)", str(error))
    enum = re.search(r"Invalid value '(.*)', expected one of \[(.*)\]", str(error.__cause__))
    if override is not None and enum is not None:
        return f"{override[1]} is not allowed; {closest(enum[1], enum[2].split(', '))}."
    if override is not None and _NO_LIST in str(error.__cause__):
        key, _, value = override[1].partition("=")
        return f"{override[1]} is not allowed: {key} takes a list, as in '{key}=[{value}]'."
    if override is not None and error.__cause__ is not None:
        return f"{override[1]} is not allowed: {str(error.__cause__).splitlines()[0].rstrip('.')}."
    full = _FULL_KEY.search(f"{error}")
    if full is not None and isinstance(error, InterpolationResolutionError):
        return f"{full['key']} is not allowed: {str(error).splitlines()[0].rstrip('.')}."
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} must be given and is not; add {error.full_key}=<value>."
    return None


_NO_LIST = "is not a ListConfig, list or tuple"
"""What OmegaConf says of one value where several are wanted."""


def _one_line(error: Exception) -> str:
    text = "; ".join(filter(None, (str(error), str(error.__cause__ or ""))))
    lines = [line.strip() for line in text.splitlines()]
    kept = [
        line
        for line in lines
        if line and not line.startswith(("full_key:", "object_type=", "reference_type="))
    ]
    return "; ".join(dict.fromkeys(kept))
