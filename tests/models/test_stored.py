"""Checkpoints as their publishers stored them: loaded as transformers loads them, or refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from probegrid.errors import CheckpointError
from probegrid.hardware.devices import Hardware
from probegrid.inference.engine import Engine
from probegrid.inference.residual import ResidualReader
from probegrid.models import libraries
from probegrid.models.as_stored import as_stored
from probegrid.models.checkpoint import find_checkpoint
from probegrid.models.facts import facts_of, is_unpacked
from probegrid.models.load import LoadedModel, load_model
from probegrid.models.load_truncated import load_truncated
from probegrid.models.request import ModelRequest
from probegrid.planning.architecture import published_bytes
from probegrid.planning.placement import Placement
from probegrid.planning.stored import stored_form
from probegrid.schema import DecodingConfig, Dtype, ModelConfig, QuantizationMethod

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("default")

BLOCKS = 2
TOKENS = torch.tensor([[1, *range(20, 50)]])
SHAPE: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip

Weights = dict[str, Tensor]


def save(model: Any, folder: Path) -> None:
    model.to(torch.bfloat16).save_pretrained(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama in bfloat16."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).to(torch.bfloat16).save_pretrained(
        folder
    )
    return folder


def stored(
    base: Path, folder: Path, settings: Mapping[str, Any], change: Callable[[Weights], Weights] | None = None
) -> Path:
    """A copy of a checkpoint with other weights, whose config says how they are stored."""
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    if change is not None:
        weights = change(load_file(folder / "model.safetensors"))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def request(folder: Path, method: str = "auto", dtype: Dtype = Dtype.bfloat16) -> ModelRequest:
    config = ModelConfig(path=str(folder), dtype=dtype)
    placement = Placement.on_the_cpu(BLOCKS, with_head=True)
    return ModelRequest(find_checkpoint(config), config, QuantizationMethod(method), placement)


def says_what_stock_says(folder: Path, dtype: Dtype = Dtype.bfloat16) -> LoadedModel:
    """Load a checkpoint both ways and compare."""
    loaded = load_model(request(folder, dtype=dtype))
    kind: Any = transformers.AutoModelForCausalLM
    stock = kind.from_pretrained(folder, dtype=getattr(torch, dtype.value), device_map={"": "cpu"}).eval()
    for module in stock.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.bfloat16
    with torch.inference_mode():
        assert torch.equal(loaded.model(TOKENS).logits, stock(TOKENS).logits)
    return loaded


@pytest.mark.parametrize(
    ("kind", "share"), [("nf4", "in 4 bits"), ("fp4", "in 4 bits"), ("int8", "in 8 bits")]
)
def test_bitsandbytes(base: Path, tmp_path: Path, kind: str, share: str) -> None:
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": kind}
    settings = transformers.BitsAndBytesConfig(**({"load_in_8bit": True} if kind == "int8" else four))
    saving: Any = transformers.AutoModelForCausalLM.from_pretrained(
        base, quantization_config=settings, device_map={"": "cpu"}, dtype=torch.bfloat16
    )
    saving.save_pretrained(tmp_path / kind)
    loaded = says_what_stock_says(tmp_path / kind)
    assert share in loaded.notes[-1]
    assert load_truncated(request(tmp_path / kind), 1).blocks == 1
    form = stored_form(find_checkpoint(ModelConfig(path=str(tmp_path / kind))).config)
    assert form is not None
    assert form.name == kind


def in_fp8(weights: Weights) -> Weights:
    """Blocks of 128 by 128, as DeepSeek's checkpoints have them."""
    found: Weights = {}
    for name, weight in weights.items():
        if "proj" not in name:
            found[name] = weight
            continue
        scale = weight.float().abs().amax() / 448
        found[name] = (weight.float() / scale).to(torch.float8_e4m3fn)
        blocks = [-(-size // 128) for size in weight.shape]
        found[name.replace(".weight", ".weight_scale_inv")] = torch.full(blocks, scale.item())
    return found


def test_fp8_is_unpacked_where_no_gpu_multiplies_it(base: Path, tmp_path: Path) -> None:
    settings = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    folder = stored(base, tmp_path / "fp8", settings, in_fp8)
    assert "100% of their weights in 16 bits" in says_what_stock_says(folder).notes[-1]
    cut = load_truncated(request(folder), 1)
    assert cut.blocks is None
    assert "is stored as fp8, which cannot be cut" in cut.note
    facts = facts_of(find_checkpoint(ModelConfig(path=str(folder))))
    assert facts.stored is not None
    assert facts.stored.total(BLOCKS) == bytes_of(folder)
    published = published_bytes(replace(facts.architecture, stored="fp8"), Dtype.bfloat16)
    assert published is not None
    assert published.total(BLOCKS) == pytest.approx(bytes_of(folder), rel=0.01)


def bytes_of(folder: Path) -> int:
    """Of the weights in a folder."""
    return sum(tensor.nbytes for tensor in load_file(folder / "model.safetensors").values())


def test_mxfp4_is_unpacked_without_its_kernels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.GptOssConfig(
        **{**SHAPE, "hidden_size": 64, "intermediate_size": 64},
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
    )
    save(transformers.GptOssForCausalLM(config), tmp_path / "base")

    def in_mxfp4(weights: Weights) -> Weights:
        found: Weights = {}
        for name, weight in weights.items():
            if name.endswith(("gate_up_proj", "down_proj")):
                experts, inputs, outputs = weight.shape
                shape = (experts, outputs, inputs // 32)
                found[f"{name}_blocks"] = torch.randint(0, 255, (*shape, 16), dtype=torch.uint8)
                found[f"{name}_scales"] = torch.full(shape, 121, dtype=torch.uint8)
            else:
                found[name] = weight
        return found

    left = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    settings = {"quant_method": "mxfp4", "modules_to_not_convert": left}
    folder = stored(tmp_path / "base", tmp_path / "mxfp4", settings, in_mxfp4)
    says_what_stock_says(folder)
    architecture = facts_of(find_checkpoint(ModelConfig(path=str(tmp_path / "base")))).architecture
    published = published_bytes(replace(architecture, stored="mxfp4"), Dtype.bfloat16)
    assert published is not None
    assert published.total(BLOCKS) == pytest.approx(bytes_of(folder), rel=0.01)


def by_compressed_tensors(base: Path, folder: Path, scheme: str) -> Path:
    """A checkpoint as the library itself writes it, every scale the largest magnitude of its weights."""
    quantization = pytest.importorskip(
        "compressed_tensors.quantization", reason="compressed-tensors is not installed"
    )
    from compressed_tensors.compressors import ModelCompressor

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    groups = {"all": quantization.preset_name_to_scheme(scheme, ["Linear"])}
    quantization.apply_quantization_config(
        model,
        quantization.QuantizationConfig(
            config_groups=groups, ignore=["lm_head"], quantization_status="frozen"
        ),
    )
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            largest = {"W4A16": 7, "W8A8": 127, "FP8_DYNAMIC": 448}[scheme]
            rows, groups_of_row = module.weight_scale.shape
            scales = module.weight.detach().float().view(rows, groups_of_row, -1).abs().amax(-1) / largest
            module.weight_scale.data = scales.to(module.weight_scale.dtype)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(str(folder))
    return folder


@pytest.mark.parametrize(("scheme", "name"), [("W4A16", "ct4"), ("W8A8", "ct8"), ("FP8_DYNAMIC", "ct8")])
def test_compressed_tensors_are_unpacked_where_they_are_loaded(
    base: Path, tmp_path: Path, scheme: str, name: str
) -> None:
    folder = by_compressed_tensors(base, tmp_path / "compressed", scheme)
    form = stored_form(find_checkpoint(ModelConfig(path=str(folder))).config)
    assert form is not None
    assert form.name == name
    assert is_unpacked(form, Hardware())
    assert says_what_stock_says(folder).notes[-1] == "blocks hold 100% of their weights in 16 bits"
    model: Any = load_model(request(folder)).model
    cut = load_truncated(request(folder), 1)
    with torch.inference_mode():
        wanted = model(TOKENS, output_hidden_states=True).hidden_states[1]
        reader = ResidualReader(cut.model, [1])
        found = reader.read([TOKENS[0].tolist()], [[(3, 4)]], torch.float32)[1]
    torch.testing.assert_close(found[0], wanted[0, 3].float())


def test_torchao(base: Path, tmp_path: Path) -> None:
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    settings: Any = transformers.TorchAoConfig(torchao.Int8WeightOnlyConfig(version=2))
    saving: Any = transformers.AutoModelForCausalLM.from_pretrained(
        base, quantization_config=settings, device_map={"": "cpu"}, dtype=torch.bfloat16
    )
    saving.save_pretrained(tmp_path / "torchao")
    assert "in 8 bits" in says_what_stock_says(tmp_path / "torchao").notes[-1]


GROUP = 32
"""Inputs that share a scale and a zero."""
SHIFTS = 4 * torch.arange(8)
IN_ORDER = list(range(8))
OF_AWQ = [0, 2, 4, 6, 1, 3, 5, 7]
"""Which of eight outputs each four bits of an integer hold (Lin et al. 2024, arXiv 2306.00978, its kernels)."""


def in_integers(values: Tensor, order: list[int]) -> Tensor:
    """Eight values of 4 bits along the last dimension, one int32 of them."""
    eights = values.long().view(*values.shape[:-1], -1, 8)[..., order]
    return (eights << SHIFTS).sum(-1).to(torch.int32)  # the eighth's highest bit is the sign


def in_gptq(stem: str, weight: Tensor) -> Weights:
    """Symmetric and without an order of activations, as GPTQ's first format has it: zeros less one."""
    groups = weight.float().T.reshape(-1, GROUP, weight.shape[0])
    scales = (groups.abs().amax(1) / 7).half()
    zeros = torch.full_like(scales, 8)
    values = (groups / scales.float()[:, None]).round().clamp(-8, 7) + 8
    by_input = values.view(weight.shape[1], weight.shape[0])
    return {
        f"{stem}.qweight": in_integers(by_input.T, IN_ORDER).T.contiguous(),
        f"{stem}.qzeros": in_integers(zeros - 1, IN_ORDER),
        f"{stem}.scales": scales,
        f"{stem}.g_idx": torch.arange(weight.shape[1], dtype=torch.int32) // GROUP,
    }


def in_awq(stem: str, weight: Tensor) -> Weights:
    """Between the least and the most of each group, as AWQ's GEMM format has it."""
    groups = weight.float().T.reshape(-1, GROUP, weight.shape[0])
    scales = ((groups.amax(1) - groups.amin(1)) / 15).half()
    zeros = (-groups.amin(1) / scales.float()).round().clamp(0, 15)
    values = (groups / scales.float()[:, None] + zeros[:, None]).round().clamp(0, 15)
    return {
        f"{stem}.qweight": in_integers(values.view(weight.shape[1], weight.shape[0]), OF_AWQ),
        f"{stem}.qzeros": in_integers(zeros, OF_AWQ),
        f"{stem}.scales": scales,
    }


def in_groups(weights: Weights, pack: Callable[[str, Tensor], Weights]) -> Weights:
    """A checkpoint whose projections are packed."""
    found: Weights = {}
    for name, weight in weights.items():
        is_packed = "proj" in name
        found |= pack(name.removesuffix(".weight"), weight) if is_packed else {name: weight.half()}
    return found


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """Without torch's compiler, which takes minutes and changes no bit here."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    ("settings", "pack"),
    [
        (
            # with no backend said it compiles kernels of its own, which takes minutes the first time
            {"quant_method": "gptq", "sym": True, "desc_act": False, "backend": "gptq_torch"},
            in_gptq,
        ),
        ({"quant_method": "awq", "version": "gemm", "zero_point": True, "backend": "torch_awq"}, in_awq),
    ],
    ids=["gptq", "awq"],
)
def test_gptq_and_awq(
    base: Path,
    tmp_path: Path,
    settings: dict[str, Any],
    pack: Callable[[str, Tensor], Weights],
) -> None:
    for library in ("gptqmodel", "optimum.gptq"):
        pytest.importorskip(library, reason=f"{library} is not installed (pip install gptqmodel optimum)")
    folder = stored(
        base,
        tmp_path / "packed",
        {"bits": 4, "group_size": GROUP, **settings},
        lambda weights: in_groups(weights, pack),
    )
    form = stored_form(find_checkpoint(ModelConfig(path=str(folder))).config)
    assert form is not None
    assert form.name == f"{settings['quant_method']}4"
    loaded = says_what_stock_says(folder, Dtype.float16)
    assert loaded.notes[-1].startswith("blocks hold 99")
    assert "in 4 bits" in loaded.notes[-1]
    # what was written is the model's own, rounded: a wrong order of bits would be another model
    with torch.inference_mode():
        own: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16).eval()
        apart = (loaded.model(TOKENS).logits - own(TOKENS).logits).norm() / own(TOKENS).logits.norm()
    assert 0.01 < apart < 0.2
    answers_as_stock_generates(loaded, folder)


class NoText:
    """A tokenizer for which nothing ends an answer but its length."""

    eos_token_id = None

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """The same of any."""
        return "x"


def answers_as_stock_generates(loaded: LoadedModel, folder: Path) -> None:
    """The engine's answers to prompts of one prefix, against transformers' own, each prompt alone."""
    prefix, suffixes = TOKENS[0].tolist(), [[3, 4, 5], [6, 7, 8, 9, 10, 11]]
    tokenizer: Any = NoText()
    engine = Engine(loaded, tokenizer, prefix, DecodingConfig(max_new_tokens=5), (), suffixes=suffixes)
    assert engine.report.used == "shared prefix"
    answers = engine.answer(suffixes, ["a", "b"])
    assert answers is not None
    kind: Any = transformers.AutoModelForCausalLM
    stock = kind.from_pretrained(folder, dtype=torch.float16, device_map={"": "cpu"}).eval()
    for suffix, (answer,) in zip(suffixes, answers, strict=True):
        row = torch.tensor([[*prefix, *suffix]])
        made = stock.generate(
            row,
            attention_mask=torch.ones_like(row),
            max_new_tokens=5,
            min_new_tokens=5,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        tokens = made.sequences[0, row.shape[1] :]
        assert list(answer.token_ids) == tokens.tolist()
        logprobs = torch.cat(made.logits).float().log_softmax(-1).gather(-1, tokens.unsqueeze(-1))
        found = torch.tensor(answer.token_logprobs)
        torch.testing.assert_close(found, logprobs.squeeze(-1), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("settings", "name", "lacking"),
    [
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True},
            "gptq4",
            "gptqmodel and optimum are",
        ),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}, "awq4", "gptqmodel is"),
        ({"quant_method": "torchao", "quant_type": {"default": {}}}, "torchao", "torchao is"),
        (
            {"quant_method": "compressed-tensors", "format": "int-quantized"},
            "ct",
            "compressed-tensors is",
        ),
    ],
)
def test_libraries_that_are_not_here_are_named(
    base: Path,
    tmp_path: Path,
    settings: dict[str, Any],
    name: str,
    lacking: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libraries, "_is_here", lambda _package: False)  # some are, in some environments
    folder = stored(base, tmp_path / "stored", settings)
    with pytest.raises(
        CheckpointError, match=f"is stored as {name}, which cannot be loaded here: {lacking} not installed"
    ):
        load_model(request(folder))


def test_what_transformers_says_is_missing_is_said(base: Path, tmp_path: Path) -> None:
    """A library that we know nothing of."""
    folder = stored(base, tmp_path / "stored", {"quant_method": "quanto", "weights": "int8"})
    with pytest.raises(
        CheckpointError, match=r"is stored as quanto, which cannot be loaded here: .*optimum-quanto"
    ):
        load_model(request(folder))


def test_another_method_than_the_stored_one_is_refused(base: Path, tmp_path: Path) -> None:
    folder = stored(base, tmp_path / "stored", {"quant_method": "fp8"})
    with pytest.raises(CheckpointError, match=r"is stored as fp8, but quantization=nf4 was asked; .*=auto"):
        load_model(request(folder, "nf4"))


def test_experts_that_were_packed_one_by_one_are_joined_without_rounding(tmp_path: Path) -> None:
    """A 4-bit Mixtral as transformers 4 saved it."""
    import bitsandbytes.functional as bnb

    torch.manual_seed(0)
    config = transformers.MixtralConfig(**SHAPE, num_local_experts=4, num_experts_per_tok=2)
    save(transformers.MixtralForCausalLM(config), tmp_path / "base")
    unpacked: Weights = {}

    def packed(weights: Weights) -> Weights:
        found: Weights = {}
        for name, weight in weights.items():
            if "experts" not in name and "proj" not in name:
                found[name] = unpacked[name] = weight
                continue
            values, state = bnb.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
            found[name] = values
            found |= {f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()}
            unpacked[name] = bnb.dequantize_4bit(values, state)
        return found

    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    folder = stored(tmp_path / "base", tmp_path / "mixtral", settings, packed)
    loaded = load_model(request(folder))
    assert "in 4 bits" in loaded.notes[-1]
    save_file(unpacked, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    plain = load_model(request(tmp_path / "base")).model
    for one, other in zip(loaded.model.model.layers, plain.model.layers, strict=True):
        for matrix in ("gate_up_proj", "down_proj"):
            assert torch.equal(getattr(one.mlp.experts, matrix), getattr(other.mlp.experts, matrix))


def test_a_method_that_changes_nothing_is_the_stored_one() -> None:
    from probegrid.compose import compose_cell

    spec = compose_cell([])
    assert spec.config.quantization.method is QuantizationMethod.none
    assert spec.choices.name.startswith("tiny-none-facts-gnll")
    assert as_stored(spec) is spec
    nf4 = {"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}
    raw = compose_cell(["model=custom", "model.path=owner/never_cached"])
    assert raw.choices.quantization == "auto"
    assert as_stored(raw, nf4).choices.quantization == "nf4"
    gptq = as_stored(raw, {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    assert gptq.choices.quantization == "gptq4"
    assert gptq.config.quantization.method is QuantizationMethod.auto


def test_dtype_is_named_where_nothing_is_packed(base: Path) -> None:
    config = ModelConfig(path=str(base), dtype=Dtype.float32)
    wanted = ModelRequest(find_checkpoint(config), config, QuantizationMethod.auto)
    assert load_model(wanted).notes[-1] == "blocks hold 100% of their weights in 32 bits"
