"""The key of a cell: two configs with different results never share one, equal results of equal questions do."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from probegrid import schema
from probegrid.cell.lookup import Lookup
from probegrid.cell.prepare import prepare
from probegrid.compose import compose_cell
from probegrid.models import fingerprint as fingerprinting
from probegrid.models.fingerprint import fingerprint
from probegrid.probes.logistic import Logistic
from probegrid.schema import CellSpec

Key = Callable[..., str]


@pytest.fixture
def key(workdir: Path, random_model: tuple[str, ...]) -> Key:
    return lambda *overrides: prepare(compose_cell([*random_model, "dataset.num_samples=5", *overrides])).key


@pytest.fixture(scope="module")
def lookup() -> Lookup:
    return Lookup()


@pytest.fixture
def key_of_what_stands(workdir: Path, random_model: tuple[str, ...], lookup: Lookup) -> Key:
    """The key, where no file changes from one to the next: each is looked up once."""
    common = (*random_model, "dataset.num_samples=5")
    return lambda *overrides: prepare(compose_cell([*common, *overrides]), lookup).key


STATEMENTS = ("dataset=facts_statements", "probe=logistic")
SAMPLED = ("decoding=sample",)

SAME: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "batch size": ((), ("decoding.batch_size=3",)),
    "copies of the model": ((), ("device_map.replicas=2",)),
    "results folder": ((), ("results_dir=elsewhere",)),
    "store folder": ((), ("store_dir=elsewhere",)),
    "tracking": ((), ("tracking=none",)),
    "tracking's experiment": ((), ("tracking.experiment=other",)),
    "a job's resources": ((), ("model.resources.gpus=2",)),
    "debug": ((), ("debug=true",)),
    "force": ((), ("force=true",)),
    "report": ((), ("report.compare=probe",)),
    "a default typed": ((), ("prompt.max_new_tokens=50",)),
    "temperature of no sample": ((), ("decoding.temperature=0.5",)),
    "seed of no sample": ((), ("decoding.seed=7",)),
    "seed of no shot": (("prompt.num_few_shot=0",), ("prompt.num_few_shot=0", "prompt.seed=7")),
    "context where there is none": ((), ("prompt.use_context=true",)),
    "order of stops": (("prompt.stop=['a','b']",), ("prompt.stop=['b','a','b']",)),
    "revision of a folder": ((), ("model.revision=main",)),
    "template never asked for": ((), ("+model.template_kwargs.date_string=1 Jan 2020",)),
    "all layers and their list": (STATEMENTS, (*STATEMENTS, "probe.layers=[2,1,0]")),
    "a layer alone and in a list": (
        (*STATEMENTS, "probe.layers=1"),
        (*STATEMENTS, "probe.layers=[1,1]"),
    ),
    "decoding where nothing is decoded": (STATEMENTS, (*STATEMENTS, "decoding.max_new_tokens=9")),
    "prompt where nothing is asked": (STATEMENTS, (*STATEMENTS, "prompt.num_few_shot=1")),
    "the end of an answer by two names": (
        ("probe=logistic",),
        ("probe=logistic", "probe.positions=answer_last"),
    ),
    "keep": ((), ("quantization.keep=false",)),
}

OTHER: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "dtype": ((), ("model.dtype=bfloat16",)),
    "quantization": ((), ("quantization=nf4",)),
    "device map": ((), ("device_map=cpu",)),
    "memory of the devices": ((), ("device_map.overhead_gb=2",)),
    "remote code": ((), ("model.trust_remote_code=true",)),
    "pickled weights": ((), ("model.use_safetensors=false",)),
    "template": ((), ("model.chat_template=default",)),
    "number of questions": ((), ("dataset.num_samples=6",)),
    "draw of the questions": ((), ("dataset.seed=1",)),
    "shots": ((), ("prompt.num_few_shot=4",)),
    "draw of the shots": ((), ("prompt.seed=1",)),
    "instruction in every block": ((), ("prompt.brief_always=true",)),
    "instruction": ((), ("prompt.instruction=Answer.",)),
    "stops": ((), ("prompt.stop=['\n']",)),
    "answer length by the prompt": ((), ("prompt.max_new_tokens=51",)),
    "answer length": ((), ("decoding.max_new_tokens=51",)),
    "counting the stop": ((), ("decoding.count_stop=true",)),
    "samples": ((), SAMPLED),
    "temperature": (SAMPLED, (*SAMPLED, "decoding.temperature=0.5")),
    "number of samples": (SAMPLED, (*SAMPLED, "decoding.num_generations=3")),
    "seed of the samples": (SAMPLED, (*SAMPLED, "decoding.seed=1")),
    "seed of the intervals": ((), ("seed=1",)),
    "probe": (SAMPLED, (*SAMPLED, "probe=semantic_entropy")),
    "a field of the probe": (STATEMENTS, (*STATEMENTS, "probe.C=[0.5]")),
    "split": (STATEMENTS, (*STATEMENTS, "probe.split=random")),
    "seed of the split": (STATEMENTS, (*STATEMENTS, "probe.seed=3")),
    "layers": (STATEMENTS, (*STATEMENTS, "probe.layers=[1]")),
    "position": (STATEMENTS, (*STATEMENTS, "probe.positions=statement_mean")),
    "worked examples": (
        ("probe=p_true", "probe.num_few_shot=2"),
        ("probe=p_true", "probe.num_few_shot=3"),
    ),
    "the model that is not read": (
        ("dataset=facts_statements", "probe=text_baseline"),
        ("dataset=facts_statements", "probe=text_baseline", "model.path=some/other"),
    ),
}


@pytest.mark.parametrize("what", SAME)
def test_what_decides_nothing_is_in_no_key(key_of_what_stands: Key, what: str) -> None:
    one, other = SAME[what]
    assert key_of_what_stands(*one) == key_of_what_stands(*other)


@pytest.mark.parametrize("what", OTHER)
def test_what_decides_the_result_is_in_the_key(key_of_what_stands: Key, what: str) -> None:
    one, other = OTHER[what]
    assert key_of_what_stands(*one) != key_of_what_stands(*other)


def test_what_is_a_default_may_be_typed() -> None:
    typed = ["model=tiny", "model.path=embedded:tiny", "dataset.num_samples=400", "seed=0", "probe=gnll"]
    assert prepare(compose_cell([])).key == prepare(compose_cell(typed)).key


@pytest.fixture
def copy(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint("llama"), tmp_path / "copy"))


def test_a_checkpoint_is_its_content_and_not_its_place(key: Key, copy: Path) -> None:
    assert key(f"model.path={copy}") == key()
    (copy / "README.md").write_text("Ours.")
    (copy / ".gitattributes").write_text("*.bin")
    assert key(f"model.path={copy}") == key()


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "generation_config.json", "config.json"]
)
def test_any_edit_of_a_checkpoint_is_noticed(key: Key, copy: Path, name: str) -> None:
    before = key(f"model.path={copy}")
    content = (copy / name).read_bytes()
    edited = (
        content.replace(b"{", b"{ ", 1) if name.endswith(".json") else content[:-1] + bytes([content[-1] ^ 1])
    )
    (copy / name).write_bytes(edited)
    assert key(f"model.path={copy}") != before


@pytest.mark.parametrize(
    "name", ["modeling_own.py", "own/layers.py", "chat_template.jinja", "added_tokens.json"]
)
def test_a_file_that_decides_what_the_model_says_is_noticed(key: Key, copy: Path, name: str) -> None:
    before = key(f"model.path={copy}")
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("{}")
    added = key(f"model.path={copy}")
    assert added != before
    (copy / name).write_text("{ }")
    assert key(f"model.path={copy}") not in (before, added)


@pytest.mark.slow
def test_one_byte_in_the_middle_of_a_large_file_is_noticed_and_it_is_read_once(
    copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = copy / "model.safetensors"
    big = {"padding": np.zeros(64 << 20, np.uint8)}
    save_file(load_file(weights) | big, weights, metadata={"format": "pt"})
    assert weights.stat().st_size > 64 << 20
    read: list[Path] = []
    sha256 = fingerprinting._sha256
    monkeypatch.setattr(fingerprinting, "_sha256", lambda file: read.append(file) or sha256(file))
    first = fingerprint(copy, use_safetensors=True)
    assert weights in read
    read.clear()
    assert fingerprint(copy, use_safetensors=True) == first
    assert weights not in read
    times = weights.stat()
    with weights.open("r+b") as stream:
        stream.seek(times.st_size // 3)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a careless tool does
    assert fingerprint(copy, use_safetensors=True) != first
    assert weights in read


def test_a_memory_that_cannot_be_kept_costs_a_reading_and_nothing_else(
    copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert fingerprint(copy, use_safetensors=True) == fingerprint(copy, use_safetensors=True)


ALL_TURNS = "{% for each in messages %}{{ each.content }} {% endfor %}"


def rows(folder: Path, name: str, answer: str) -> Path:
    file = folder / f"{name}.jsonl"
    lines = [{"question": f"Who is {number}?", "answers": [answer]} for number in range(10)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_a_dataset_is_its_content_and_a_template_what_it_renders(key: Key, tmp_path: Path) -> None:
    def key_with(name: str, answer: str, template: str) -> str:
        data, file = rows(tmp_path, name, answer), tmp_path / f"{name}.jinja"
        file.write_text(template)
        return key(
            *("dataset=jsonl", f"dataset.path={data}", "prompt.num_few_shot=1"),
            f"model.chat_template={file}",
        )

    base = key_with("one", "me", ALL_TURNS)
    assert key_with("other", "me", ALL_TURNS) == base
    assert key_with("one", "me", ALL_TURNS + "{# alike #}") == base
    assert key_with("one", "you", ALL_TURNS) != base
    assert key_with("one", "me", "Hello: " + ALL_TURNS) != base


def test_the_date_of_a_template_is_fixed_and_in_the_key(key: Key, tmp_path: Path) -> None:
    file = tmp_path / "dated.jinja"
    for dated in (
        "{{ date_string }} " + ALL_TURNS,
        "{{ strftime_now('%d %b %Y') }} " + ALL_TURNS,
    ):
        file.write_text(dated)
        spec = compose_cell(["dataset.num_samples=5", f"model.chat_template={file}"])
        cell = prepare(spec)
        assert cell.prompts[0].text.startswith("26 Jul 2024")
        chosen = replace(spec.config.model, template_kwargs={"date_string": "01 Feb 2025"})
        other = prepare(replace(spec, config=replace(spec.config, model=chosen)))
        assert other.prompts[0].text.startswith("01 Feb 2025")
        assert other.key != cell.key


@pytest.mark.slow
def test_a_field_that_is_added_with_a_default_changes_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every group, as the next version may."""
    statements = ("dataset=facts_statements", "dataset.num_samples=40", "probe=logistic", "probe.layers=[1]")
    spec = compose_cell(statements)
    asked = compose_cell(["dataset.num_samples=5", "decoding=sample"])
    lookup = Lookup()
    before = [prepare(each, lookup).key for each in (spec, asked)]
    for name in ("model", "quantization", "device_map", "prompt", "decoding", "probe"):
        for each, known in zip((spec, asked), before, strict=True):
            value = getattr(each.config, name)
            added = make_dataclass(
                type(value).__name__, [("one_more", int, field(default=5))], bases=(type(value),)
            )
            added.__module__ = type(value).__module__
            grown = added(**{part.name: getattr(value, part.name) for part in fields(value)})
            config = replace(each.config, **{name: grown})
            assert prepare(replace(each, config=config), lookup).key == known
            changed = replace(each, config=replace(config, **{name: replace(grown, one_more=6)}))
            if name not in (
                "quantization",
                "prompt",
            ):  # which are described value by value, or by their tokens
                is_unread = name == "decoding" and each is spec
                assert (prepare(changed, lookup).key == known) is is_unread, name


SOURCE = '''
from dataclasses import dataclass
from probegrid.probes import AnswerProbe, Scores, Scoring

@dataclass
class Own(AnswerProbe):
    """Scores an answer by its length."""

    def score(self, scoring: Scoring) -> Scores:
        return Scores([{sign}float(len(answer.text)) for answer in scoring.reading.greedy])
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], CellSpec]]:
    """A probe of one's own, whose source may change."""
    monkeypatch.syspath_prepend(tmp_path)

    def spec_with(sign: str) -> CellSpec:
        (tmp_path / "own_probe.py").write_text(textwrap.dedent(SOURCE.replace("{sign}", sign)))
        sys.modules.pop("own_probe", None)
        import importlib
        import linecache

        importlib.invalidate_caches()
        linecache.clearcache()
        module = importlib.import_module("own_probe")
        spec = compose_cell(["dataset.num_samples=5"])
        return replace(spec, config=replace(spec.config, probe=module.Own()))

    yield spec_with
    sys.modules.pop("own_probe", None)


def test_a_probe_from_outside_is_known_by_its_source(outside: Callable[[str], CellSpec]) -> None:
    first, same, changed = (prepare(outside(sign)).key for sign in ("", "", "-"))
    assert first == same
    assert first != changed
    assert prepare(compose_cell(["dataset.num_samples=5"])).key != first


def test_what_is_looked_up_once_gives_the_same_keys() -> None:
    lookup = Lookup()
    for overrides in (
        ["dataset.num_samples=5"],
        ["dataset.num_samples=5", "seed=1"],
        ["dataset=facts_statements", "probe=logistic"],
    ):
        assert prepare(compose_cell(overrides), lookup).key == prepare(compose_cell(overrides)).key


def test_every_dimension_is_in_the_key() -> None:
    assert {"model", "quantization", "device_map", "dataset", "probe"} == set(
        schema.Choices.__dataclass_fields__
    )


@dataclass
class Grown(Logistic):
    """The logistic probe with one more field."""

    more: int = 0


def test_a_probe_is_known_by_its_declared_name() -> None:
    assert Logistic.declared_name() == "logistic"
    assert Grown.declared_name() == "test_identity"
