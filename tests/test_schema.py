"""No value of any field of the configuration ends in a traceback: it is taken, or refused in one line."""

from __future__ import annotations

import functools
import math
import string
from dataclasses import fields, is_dataclass
from typing import get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import probegrid.data
import probegrid.probes
from probegrid.compose import compose_cell
from probegrid.errors import ConfigError
from probegrid.plugins import config_classes
from probegrid.schema import Config, DatasetConfig, DecodingConfig, ProbeConfig, to_plain
from probegrid.schema.ranges import Range, declared
from probegrid.sweep.options import LauncherOptions, LocalOptions, SlurmOptions

CHOICES = [
    (group, name, owner)
    for group, package, base in (
        ("dataset", probegrid.data, DatasetConfig),
        ("probe", probegrid.probes, ProbeConfig),
    )
    for name, owner in config_classes(f"{group}s", package, base)
]
ODD_NUMBERS = [
    *(
        "nan",
        ".nan",
        "inf",
        "-inf",
        "1e400",
        "-1e400",
        "1e-320",
        "-0.0",
        "0",
        "-1",
        "0.5",
        "1e9",
        "1_000",
        "0x10",
    ),
    *map(str, (10**30, -(10**30), 2**31, 2**63)),
    *("9" * 400, "9" * 5000, "-" + "9" * 5000, "\uff11\uff12"),
]
NUMBERS = st.one_of(st.sampled_from(ODD_NUMBERS), st.integers().map(str), st.floats().map(repr))
HYDRAS_OWN = [
    *("[", "]", "{", "}", "[1,2]", "[nan]", "{a:1}", "{a:{b:nan}}", "[[[]]]", "a,b", "a=b"),
    *("range(3)", "range(0)", "choice(1,2)", "${", "${seed}", "${no}", "${oc.env:NO}"),
]
ODD_TEXTS = [
    "",
    " ",
    "???",
    "null",
    "true",
    "*",
    "$",
    "'",
    '"',
    "\\",
    "!",
    "#",
    "@",
    "~",
    "/",
    "..",
    "-",
    "--cfg",
]
HOSTILE_TEXTS = [
    *("nul\0", "'nul\0'", "line\nbreak", "'line\nbreak'", "tab\t", "'\x1b[31m'", "\ud800", "'\udcff'"),
    *("a" * 6000, "x/" * 3000, "\u00e9" * 200, "1" * 260, "\U0001f999"),
]
TEXTS = st.one_of(
    st.sampled_from([*HYDRAS_OWN, *ODD_TEXTS, *HOSTILE_TEXTS]),
    st.text(max_size=30),
    st.text(string.printable, max_size=30),
    st.text(string.printable, max_size=30).map(lambda text: "'" + text.replace("'", "") + "'"),
)


def leaves(owner: type, prefix: str) -> list[str]:
    """Every field of a dataclass by its dotted key, those of dataclasses in it too."""
    found = []
    for name, hint in get_type_hints(owner).items():
        if name not in {part.name for part in fields(owner)}:
            continue
        inner = [each for each in (hint, *get_args(hint)) if isinstance(each, type) and is_dataclass(each)]
        found += leaves(inner[0], f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return found


@functools.cache
def keys() -> list[tuple[tuple[str, ...], str]]:
    """Every key there is, with the choice it belongs to."""
    of_root = [((), key) for key in leaves(Config, "") if not key.startswith(("probe.", "dataset."))]
    return of_root + [
        ((f"{group}={name}",), key) for group, name, owner in CHOICES for key in leaves(owner, f"{group}.")
    ]


@pytest.mark.slow
@settings(
    max_examples=200, phases=[Phase.explicit, Phase.generate], suppress_health_check=[HealthCheck.too_slow]
)
@given(key=st.sampled_from(keys()), value=NUMBERS | TEXTS)
def test_any_value_of_any_key_is_taken_or_refused_in_one_line(
    key: tuple[tuple[str, ...], str], value: str
) -> None:
    choice, name = key
    try:
        config = compose_cell([*choice, f"{name}={value}"]).config
    except ConfigError as error:
        assert str(error)
        assert len(str(error).splitlines()) == 1, str(error)
    else:
        check_that_it_can_be_written(to_plain(config))


def check_that_it_can_be_written(value: object) -> None:
    """Every number is finite and every text can be encoded."""
    if isinstance(value, dict | list):
        for content in value.values() if isinstance(value, dict) else value:
            check_that_it_can_be_written(content)
    elif isinstance(value, float):
        assert math.isfinite(value)
    elif isinstance(value, int):
        assert abs(value) <= 2**53
    elif isinstance(value, str):
        assert "\0" not in value
        value.encode()


@pytest.mark.parametrize("owner", [Config, LocalOptions, SlurmOptions, *[owner for _, _, owner in CHOICES]])
def test_every_number_says_what_it_may_be(owner: type) -> None:
    for name, hint in get_type_hints(owner).items():
        types = {hint, *get_args(hint)}
        is_field = name in {part.name for part in fields(owner)}
        if is_field and types & {int, float}:
            assert isinstance(declared(owner, name), Range), f"{owner.__name__}.{name}"
        for inner in types:
            if is_field and isinstance(inner, type) and is_dataclass(inner):
                test_every_number_says_what_it_may_be(inner)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "decoding.temperature=nan",
            "decoding.temperature=nan is not a finite number; give more than 0, at most 100.",
        ),
        ("decoding.temperature=inf", "decoding.temperature=inf is not a finite number"),
        ("seed=-1", "=-1 is negative; give 0 or more, at most 2147483647."),
        ("device_map.gpus=-1", "device_map.gpus=-1 is negative; give 0 or more, at most 256."),
        ("device_map.gpus=1000000", "device_map.gpus=1000000 is too large"),
        (
            "device_map.overhead_gb=inf",
            "device_map.overhead_gb=inf is not a finite number; give 0 or more GB",
        ),
        (f"dataset.num_samples={10**30}", "dataset.num_samples=(about 10^30) is too large"),
        (f"dataset.num_samples={'9' * 5000}", "a number on the command line has more than 4300 digits"),
        (
            f"results_dir={'a' * 6000}",
            "is too long (6000 bytes): a path has at most 4095, each name in it 255.",
        ),
        ("results_dir='a\0b'", "results_dir=a\\x00b holds a NUL character; remove it."),
        ("store_dir='a\nb'", "store_dir=a\\nb holds a line break or another control character; remove it."),
        ("probe=logistic probe.C=[1,nan]", "probe.C=nan is not a finite number"),
        ("probe=logistic probe.C=[1,-1]", "probe.C=-1.0 is negative; give, for example, [0.01,1]."),
        ("model.template_kwargs.a=nan", "model.template_kwargs.a=nan is not a finite number"),
        ("decoding.batch_size=" + "9" * 400, "is neither 'auto' nor a number of at least 1"),
        ("decoding.batch_size=\uff11\uff12", "is neither 'auto' nor a number of at least 1"),
    ],
)
def test_hostile_values_are_refused_in_one_sentence(override: str, sentence: str) -> None:
    overrides = override.split(" ") if override.startswith("probe=") else [override]
    with pytest.raises(ConfigError) as raised:
        compose_cell(overrides)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    "field", [part.name for part in fields(SlurmOptions) if declared(SlurmOptions, part.name)]
)
@given(value=st.one_of(st.floats(), st.integers(), st.just(10**5000), st.just(-(10**5000))))
@settings(max_examples=30)
def test_a_launchers_options_are_held_to_their_ranges_too(field: str, value: float) -> None:
    try:
        options = SlurmOptions(**{field: value})
    except ConfigError as error:
        assert str(error).startswith(f"hydra.launcher.{field}=")
        assert "\n" not in str(error)
        assert len(str(error)) < 300
    else:
        check_that_it_can_be_written(vars(options))


def test_a_limit_of_zero_or_less_is_refused() -> None:
    for name in ("cells_per_job", "max_failures"):
        with pytest.raises(ConfigError, match=f"hydra.launcher.{name}=0 .*1 or more, or null for no limit"):
            LauncherOptions(**{name: 0})
    with pytest.raises(ConfigError, match="0 turns it off"):
        LauncherOptions(resubmit=-1)


def test_a_value_given_from_python_is_held_to_its_range() -> None:
    with pytest.raises(ConfigError, match=r"decoding\.temperature=nan"):
        DecodingConfig(temperature=math.nan)
    with pytest.raises(ConfigError, match=r"decoding\.max_new_tokens=\(about 10\^\d+\) is too large"):
        DecodingConfig(max_new_tokens=10**5000)
