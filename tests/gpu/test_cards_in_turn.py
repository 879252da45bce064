"""A model larger than its cards together: passes go abreast, answers are one card's, and a kill loses nothing.

``PROBEGRID_REHEARSE=1`` runs the cells on the CPU, where no cards take turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from sweep_helpers import wait_until
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from probegrid.embedded import tokenizer
from probegrid.inference.generation import Generation, Sampling, generate
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.inference.stopping import StopRule
from probegrid.models.checkpoint import find_checkpoint
from probegrid.models.fusing import fuse
from probegrid.models.load_by_parts import load_placed
from probegrid.planning.placement import Placement
from probegrid.schema import Dtype, ModelConfig, QuantizationMethod

REHEARSED = os.environ.get("PROBEGRID_REHEARSE") == "1"
GPUS = torch.cuda.device_count()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(GPUS < 2 and not REHEARSED, reason="needs two GPUs"),
]

BLOCKS = 16
PREFIX = list(range(5, 205))
SUFFIXES = [[(7 * row + slot) % 90 + 10 for slot in range(20 + 11 * row)] for row in range(24)]
QUESTIONS = 240


class NoText:
    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vocabulary = tokenizer.build(2048)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=1024, intermediate_size=2816, num_hidden_layers=BLOCKS,
        num_attention_heads=16, num_key_value_heads=4, max_position_embeddings=2048, initializer_range=0.05,
        bos_token_id=vocabulary.bos_token_id, eos_token_id=vocabulary.eos_token_id,
        pad_token_id=vocabulary.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    target = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(config).save_pretrained(target, max_shard_size="200MB")
    tokenizer.save(vocabulary, target)
    return target


def load(folder: Path, method: str, dtype: Dtype, placement: Placement) -> PreTrainedModel:
    config = ModelConfig(path=str(folder), dtype=dtype)
    return load_placed(
        find_checkpoint(config), config, QuantizationMethod(method), placement, keep_in=folder / "store"
    ).model


def answers(model: PreTrainedModel, lanes: int) -> list[list[Generation]]:
    decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=500, lanes=lanes)
    keys = [f"question {row}" for row in range(len(SUFFIXES))]
    rule = StopRule(NoText(), [], [])
    return generate(decoder, SUFFIXES, keys, rule, max_new_tokens=12, sampling=Sampling(2))


@pytest.mark.skipif(REHEARSED, reason="says something of cards")
@pytest.mark.parametrize("lanes", sorted({1, max(GPUS, 2)}))
@pytest.mark.parametrize("streamed", [(), (0, 3, 4, 9, 13), tuple(range(BLOCKS))])
@pytest.mark.parametrize(
    ("method", "dtype"), [("none", Dtype.float32), ("none", Dtype.bfloat16), ("nf4", Dtype.bfloat16)]
)
def test_cards_in_turn_answer_bit_for_bit_as_one(
    folder: Path, method: str, dtype: Dtype, streamed: tuple[int, ...], lanes: int
) -> None:
    one = load(folder, method, dtype, Placement(0, (0,) * BLOCKS, (), 0))
    in_turn = Placement(0, tuple(block % GPUS for block in range(BLOCKS)), streamed, GPUS - 1)
    several = load(folder, method, dtype, in_turn)
    if dtype is Dtype.bfloat16:
        fuse(one), fuse(several)
    assert SharedPrefixDecoder(several, PREFIX, chunk_tokens=500).n_abreast == GPUS
    wanted = answers(one, lanes)
    assert answers(several, lanes) == answers(several, lanes) == wanted


def start(folder: Path, place: Path, *words: str) -> subprocess.Popen[str]:
    """Start a cell of this model in a folder of its own."""
    place.mkdir(exist_ok=True)
    command = [
        *(sys.executable, "-m", "probegrid", "tracking=none", "model=custom", f"model.path={folder}"),
        *("model.dtype=float32", f"dataset.num_samples={QUESTIONS}", "decoding.batch_size='16'"),
        *("decoding.max_new_tokens=24", "prompt.stop=[never]", *words),
    ]
    environment = os.environ | {"XDG_CACHE_HOME": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True)


def rows(place: Path) -> int:
    return sum(pq.read_metadata(file).num_rows for file in place.glob("store/answers/*/part-*.parquet"))


def result(place: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    (file,) = place.glob("results/*/result.json")
    return json.loads(file.read_text()), pq.read_table(file.with_name("answers.parquet")).to_pylist()


@pytest.mark.parametrize(
    "device_map",
    [
        ["device_map.strategy=balanced"],
        [f"device_map.gpu_memory_gb={0.05 + 0.6 / max(GPUS, 1):.2f}", "device_map.overhead_gb=0.02"],
    ],
    ids=["in stages", "streamed"],
)
def test_a_cell_killed_half_way_ends_as_on_one_card(
    folder: Path, tmp_path: Path, device_map: list[str]
) -> None:
    cards = [f"device_map.gpus={GPUS}", *device_map]
    words = ["device_map=cpu"] if REHEARSED else ["device_map.replicas=1", *cards]
    first = start(folder, tmp_path / "several", *words)
    wait_until(lambda: rows(tmp_path / "several") >= QUESTIONS // 3 or first.poll() is not None, 300)
    assert first.poll() is None, first.communicate()[1]
    first.kill()
    first.communicate()
    assert QUESTIONS // 3 <= rows(tmp_path / "several") < QUESTIONS
    second = start(folder, tmp_path / "several", *words)
    said = second.communicate()[1]
    assert second.returncode == 0, said
    one = start(folder, tmp_path / "one", *(words if REHEARSED else ["device_map.gpus=1"]))
    assert one.communicate()[0] is None
    assert one.returncode == 0
    (record, found), (_, wanted) = result(tmp_path / "several"), result(tmp_path / "one")
    if not REHEARSED:
        placement = record["plan"]["placement"]
        assert {*placement["blocks"]} == {*range(GPUS)}
        assert bool(placement["streamed"]) is ("gpu_memory_gb" in device_map[0])
    assert rows(tmp_path / "several") == QUESTIONS
    for a, b in zip(found, wanted, strict=True):
        assert a["token_ids"] == b["token_ids"]
        assert a["token_logprobs"] == pytest.approx(b["token_logprobs"], abs=1e-3)
