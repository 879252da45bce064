"""Quantize once: what is read back is what was made, to the last bit, whole, cut, or made in several runs."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from probegrid.disk import content_name
from probegrid.errors import CheckpointError
from probegrid.models import quantized_store
from probegrid.models.build import CheckpointParts
from probegrid.models.checkpoint import Checkpoint, find_checkpoint
from probegrid.models.load_by_parts import config_of
from probegrid.models.load_truncated import load_truncated
from probegrid.models.parts import Part, parts_of
from probegrid.models.quantization import constants_of
from probegrid.models.quantized_store import QuantizedStore, folder_of
from probegrid.models.request import ModelRequest
from probegrid.models.skeleton import skeleton
from probegrid.models.weights import Weights
from probegrid.planning.architecture import weight_bytes
from probegrid.planning.families import architecture_from_config
from probegrid.planning.placement import Placement
from probegrid.schema import Dtype, ModelConfig, QuantizationMethod

Find = Callable[[str], Checkpoint]
Load = Callable[..., PreTrainedModel]
Logits = Callable[[PreTrainedModel], Tensor]

BLOCKS = 5
CUT = Placement("cpu", ("cpu",) * 2, (), None)
KINDS = [(family, method) for family in ("llama", "qwen2", "mistral") for method in ("int8", "nf4")]
KINDS += [("mixtral", "nf4"), ("mixtral", "int8")]


def tensors_of(model: PreTrainedModel) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from (getattr(holder, attribute) for holder, attribute in constants_of(model))


def equal(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    pairs = list(zip(tensors_of(one), tensors_of(other), strict=True))
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def copy(found: Find, tmp_path: Path) -> Callable[[str], Checkpoint]:
    """A copy of a checkpoint that a test may damage."""

    def make(family: str) -> Checkpoint:
        folder = tmp_path / family
        shutil.copytree(found(family).name, folder)
        return find_checkpoint(ModelConfig(path=str(folder)))

    return make


def remove_weights(checkpoint: Checkpoint) -> None:
    for file in Path(checkpoint.name).glob("*.safetensors*"):
        file.unlink()


def part_of(folder: Path, name: str) -> Path:
    (file,) = folder.glob(f"{name}-*.safetensors")
    return file


def kept_in(store: Path, checkpoint: Checkpoint, method: str) -> Path:
    return folder_of(store, checkpoint, QuantizationMethod(method), Dtype.bfloat16)


@pytest.mark.parametrize(("family", "method"), KINDS)
def test_later_loads_need_the_copy_alone_and_are_equal(
    copy: Find, load: Load, logits: Logits, tmp_path: Path, family: str, method: str
) -> None:
    checkpoint = copy(family)
    made = load(checkpoint, method)
    first = load(checkpoint, method, keep_in=tmp_path)
    remove_weights(checkpoint)
    again = load(checkpoint, method, keep_in=tmp_path)
    assert equal(made, first)
    assert equal(made, again)
    assert torch.equal(logits(made), logits(again))
    cut = load(checkpoint, method, CUT, keep_in=tmp_path)
    blocks: Any = made.base_model.layers[:2]
    assert all(torch.equal(a, b) for a, b in zip(blocks.parameters(), cut.layers.parameters(), strict=True))


@pytest.mark.parametrize("method", ["int8", "nf4"])
def test_the_copy_takes_the_bytes_of_the_plan(found: Find, load: Load, tmp_path: Path, method: str) -> None:
    load(found("llama"), method, keep_in=tmp_path)
    kept = load_file(part_of(kept_in(tmp_path, found("llama"), method), "model.layers.3"))
    settings = (
        "quant_state",
        "weight_format",
    )  # not weights: the offset of the maxima (4 bytes) is among them
    nbytes = sum(value.nbytes for name, value in kept.items() if not any(part in name for part in settings))
    architecture = architecture_from_config(found("llama").config)
    planned = weight_bytes(architecture, Dtype.bfloat16, QuantizationMethod(method)).block
    assert nbytes + (7 * 4 if method == "nf4" else 0) == planned


@pytest.mark.parametrize("method", ["int8", "nf4"])
def test_a_whole_copy_is_a_checkpoint_of_its_own(
    found: Find, load: Load, logits: Logits, tmp_path: Path, method: str
) -> None:
    model = load(found("llama"), method, keep_in=tmp_path)
    folder = kept_in(tmp_path, found("llama"), method)
    itself = load(find_checkpoint(ModelConfig(path=str(folder))), method)
    assert equal(model, itself)
    stock = AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"}).eval()
    for module in stock.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    assert torch.equal(logits(stock), logits(model))


@pytest.mark.parametrize("method", ["int8", "nf4"])
def test_it_can_be_cut_by_truncated_loading(
    found: Find, load: Load, tmp_path: Path, tokens: Tensor, method: str
) -> None:
    expected = load(found("llama"), method, CUT, keep_in=tmp_path)
    load(found("llama"), method, keep_in=tmp_path)
    config = ModelConfig(path=str(kept_in(tmp_path, found("llama"), method)))
    request = ModelRequest(find_checkpoint(config), config, QuantizationMethod(method), CUT)
    cut = load_truncated(request, 2).model
    for module in cut.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    with torch.inference_mode():
        assert torch.equal(cut(tokens).last_hidden_state, expected(input_ids=tokens).last_hidden_state)


@pytest.mark.parametrize("method", ["int8", "nf4"])
def test_what_transformers_saved_loads_as_it_is(
    found: Find, load: Load, logits: Logits, tmp_path: Path, method: str
) -> None:
    from probegrid.models.quantization import quantization_config

    settings = quantization_config(QuantizationMethod(method), found("llama"))
    stock = AutoModelForCausalLM.from_pretrained(
        found("llama").name, dtype=torch.bfloat16, quantization_config=settings, device_map={"": "cpu"}
    )
    stock.save_pretrained(tmp_path / "saved")
    saved = find_checkpoint(ModelConfig(path=str(tmp_path / "saved")))
    assert torch.equal(logits(load(saved, method)), logits(load(found("llama"), method)))
    with pytest.raises(CheckpointError, match=f"is stored as {method}"):
        load(saved, "none")


def test_a_load_of_the_first_blocks_keeps_those_and_a_whole_one_makes_the_rest(
    found: Find, load: Load, tmp_path: Path
) -> None:
    load(found("llama"), "nf4", CUT, keep_in=tmp_path)
    folder = kept_in(tmp_path, found("llama"), "nf4")
    names = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    parts = ["model.embed_tokens", "model.layers.0", "model.layers.1"]
    assert {name.partition("-")[0] for name in names} == set(parts)
    load(found("llama"), "nf4", keep_in=tmp_path)
    assert (folder / "config.json").is_file()
    assert all((folder / name).stat().st_mtime_ns == made for name, made in names.items())


def test_an_interrupted_load_goes_on_where_it_was(
    found: Find, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = CheckpointParts.part
    made: list[str] = []

    def failing(self: CheckpointParts, asked: Part, device: torch.device) -> dict[str, Tensor]:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(asked.name)
        return part(self, asked, device)

    monkeypatch.setattr(CheckpointParts, "part", failing)
    with pytest.raises(KeyboardInterrupt):
        load(found("llama"), "nf4", keep_in=tmp_path)
    folder = kept_in(tmp_path, found("llama"), "nf4")
    assert not (folder / "config.json").exists()
    before = list(made)
    monkeypatch.setattr(
        CheckpointParts, "part", lambda *arguments: made.append(arguments[1].name) or part(*arguments)
    )
    load(found("llama"), "nf4", keep_in=tmp_path)
    assert before == ["model.embed_tokens", "model.layers.0", "model.layers.1"]
    assert made[3:] == ["model.layers.2", "model.layers.3", "model.layers.4", "model.norm", "lm_head"]
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("place", [20, 2000, -1])
def test_a_part_in_which_a_bit_flipped_is_set_aside_and_made_again(
    found: Find, load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: int
) -> None:
    whole = load(found("llama"), "nf4", keep_in=tmp_path)
    file = part_of(kept_in(tmp_path, found("llama"), "nf4"), "model.layers.2")
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert equal(whole, load(found("llama"), "nf4", keep_in=tmp_path))
    assert f"{file.name} is damaged" in capsys.readouterr().err
    assert file.with_name(f"{file.name}.damaged").read_bytes() == content
    assert content_name(file) == file.stem.rpartition("-")[2]


def test_what_a_killed_writer_left_is_removed(found: Find, load: Load, tmp_path: Path) -> None:
    folder = kept_in(tmp_path, found("llama"), "nf4")
    folder.mkdir(parents=True)
    old, new = folder / ".model.norm.safetensors.1.tmp", folder / ".model.norm.safetensors.2.tmp"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    load(found("llama"), "nf4", keep_in=tmp_path)
    assert not old.exists()
    assert new.exists()


def test_without_room_nothing_is_kept_and_the_model_loads(
    found: Find, load: Load, logits: Logits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(quantized_store.shutil, "disk_usage", lambda _: usage(1000))
    model = load(found("llama"), "nf4", keep_in=tmp_path)
    assert list(kept_in(tmp_path, found("llama"), "nf4").iterdir()) == []
    assert torch.equal(logits(model), logits(load(found("llama"), "nf4")))


def test_other_weights_another_method_or_dtype_are_kept_elsewhere(found: Find, tmp_path: Path) -> None:
    folders = {
        folder_of(tmp_path, found(family), method, dtype)
        for family in ("llama", "mistral")
        for method in (QuantizationMethod.int8, QuantizationMethod.nf4)
        for dtype in (Dtype.bfloat16, Dtype.float16)
    }
    assert len(folders) == 8


def test_a_missing_tensor_and_another_shape_are_refused(copy: Find, load: Load) -> None:
    checkpoint = copy("llama")
    index = Path(checkpoint.name) / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    del content["weight_map"]["model.layers.3.mlp.up_proj.weight"]
    index.write_text(json.dumps(content))
    with pytest.raises(
        CheckpointError, match=r"lacks 1 weights of its architecture, model\.layers\.3\.mlp\.up_proj\.weight"
    ):
        load(checkpoint, "nf4")
    config = Path(checkpoint.name) / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": 96', '"vocab_size": 97'))
    with pytest.raises(CheckpointError, match=r"weight is \[96, 64\] in the checkpoint and \[97, 64\]"):
        load(find_checkpoint(ModelConfig(path=checkpoint.name)), "nf4")


def test_a_file_that_is_gone_is_named(copy: Find, load: Load) -> None:
    checkpoint = copy("mistral")
    gone = sorted(Path(checkpoint.name).glob("*.safetensors"))[-1]
    gone.unlink()
    with pytest.raises(CheckpointError, match=gone.name):
        load(checkpoint, "none")


def test_the_store_holds_parts_whole_or_not_at_all(found: Find, tmp_path: Path) -> None:
    dtype = torch.bfloat16
    method, checkpoint = QuantizationMethod.nf4, found("llama")
    model = skeleton(config_of(checkpoint), None, dtype)
    parts = CheckpointParts(model, Weights(checkpoint), method, dtype)
    own = parts_of(model)
    store = QuantizedStore(tmp_path, checkpoint, method, Dtype.bfloat16, parts, [part.name for part in own])
    (block,) = (part for part in own if part.name == "model.layers.1")
    made = store.part(block, torch.device("cpu"))
    kept = store.part(block, torch.device("cpu"))
    assert made.keys() == kept.keys()
    assert all(torch.equal(made[name], kept[name]) for name in made)
