"""What people have in place of a checkpoint is called what it is, with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from probegrid.errors import CheckpointError
from probegrid.models.checkpoint import find_checkpoint
from probegrid.models.load import LoadedModel, load_model, load_tokenizer
from probegrid.models.request import ModelRequest
from probegrid.planning.placement import Placement
from probegrid.schema import ModelConfig, QuantizationMethod


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small whole checkpoint."""
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def find(path: Path) -> None:
    find_checkpoint(ModelConfig(path=str(path)))


def test_a_lora_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))
    with pytest.raises(CheckpointError, match=r"is a LoRA adapter of owner/base.*merge_and_unload"):
        find(folder)


def test_a_gguf_file_and_a_folder_of_them(tmp_path: Path) -> None:
    file = tmp_path / "model-Q4_K_M.gguf"
    file.write_bytes(b"GGUF")
    for path in (file, tmp_path):
        with pytest.raises(CheckpointError, match=r"is a GGUF file, the format of llama\.cpp"):
            find(path)


def test_a_pointer_in_place_of_the_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    with pytest.raises(CheckpointError, match=r"is a git-lfs pointer, not the weights; run `git lfs pull`"):
        find(folder)


@pytest.mark.parametrize("kept", [0.9, 0.0001])
def test_a_file_that_is_cut_short(folder: Path, kept: float) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: max(20, int(kept * len(content)))])
    with pytest.raises(CheckpointError, match=r"is cut short: it has \d+ of at least \d+ bytes"):
        find(folder)


def test_the_publishers_own_format_alone(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    with pytest.raises(CheckpointError, match=r"consolidated\.safetensors alone.*not transformers'"):
        find(folder)


def test_weights_that_the_model_has_no_place_for_are_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    names = ("model.layers.0.mlp.adapter.weight", "model.layers.0.self_attn.rotary_emb.inv_freq")
    more = {name: torch.ones(2) for name in names}
    save_file({**load_file(file), **more}, file, metadata={"format": "pt"})
    config = ModelConfig(path=str(folder))
    placement = Placement.on_the_cpu(1, with_head=True)
    loaded = load_model(ModelRequest(find_checkpoint(config), config, QuantizationMethod.auto, placement))
    (note,) = (note for note in loaded.notes if "no place for" in note)
    assert note.endswith("left out: model.layers.0.mlp.adapter.weight")


def test_shards_whose_index_is_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(
        CheckpointError, match=r"holds model-00001-of-00002\.safetensors, but neither model\."
    ):
        find(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": []}'])
def test_an_index_that_names_no_files(folder: Path, content: str) -> None:
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(
        CheckpointError, match=r"index\.json (holds no JSON object|does not say).*copy or download"
    ):
        find(folder)


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_settings_that_are_no_object(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=rf"{name} holds no JSON object .*copy or download"):
        find(folder)


def test_a_pointer_in_place_of_the_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is a git-lfs pointer, not the file"):
        find(folder)


@pytest.mark.parametrize("count", [0, -2])
def test_a_model_of_no_layers(folder: Path, count: int) -> None:
    change(folder, num_hidden_layers=count)
    with pytest.raises(CheckpointError, match=rf"says that it has {count} layers"):
        find(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"has no tokenizer: its tokenizer\.json is missing"),
        ("{", r"tokenizer\.json holds no JSON object"),
        (
            '{"added_tokens": [], "model": {"type": "Foo"}}',
            r"the tokenizer of .* cannot be read: .*copy both",
        ),
    ],
)
def test_tokenizers_that_are_none(folder: Path, content: str | None, said: str) -> None:
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=said):
        tokenizer_of(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": "32"}, r"not as its family's is: Field 'hidden_size' expected int, got str"),
        ({"dtype": "foo16"}, r"or its config\.json, cannot be read: .*'foo16'"),
    ],
)
def test_a_config_that_its_family_does_not_take(folder: Path, changes: dict[str, object], said: str) -> None:
    (folder / "tokenizer.json").write_text("{}")
    change(folder, **changes)
    with pytest.raises(CheckpointError, match=said):
        tokenizer_of(folder)


def test_an_end_of_sequence_that_is_no_token_id(folder: Path) -> None:
    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = [2, "</s>"]
    with pytest.raises(CheckpointError, match=r"eos_token_id='</s>', which is no token id"):
        assert LoadedModel(model, 0.0).eos_ids


def change(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def tokenizer_of(folder: Path) -> None:
    config = ModelConfig(path=str(folder))
    load_tokenizer(find_checkpoint(config), config)
