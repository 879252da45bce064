"""Every family is loaded part by part, cut at any depth, placed, packed and planned, as its own code has it.

Small random checkpoints of `zoo`; a few of the families stand for the rest unless ``PROBEGRID_ZOO=all`` is set.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor, nn

from probegrid.errors import CheckpointError
from probegrid.inference import engine, trial
from probegrid.inference.engine import Engine
from probegrid.inference.one_by_one import OneByOneDecoder
from probegrid.inference.residual import ResidualReader, Row, Rows, prefix_of
from probegrid.inference.residual_trial import rows_that_agree
from probegrid.models.blocks import decoder_blocks
from probegrid.models.checkpoint import Checkpoint, find_checkpoint
from probegrid.models.facts import by_skeleton, facts_of, headers_of
from probegrid.models.load import load_model
from probegrid.models.load_truncated import load_truncated
from probegrid.models.request import ModelRequest
from probegrid.models.storage import bits_of_blocks
from probegrid.planning.architecture import packed_share, parameters, weight_bytes
from probegrid.planning.placement import Placement
from probegrid.schema import DecodingConfig, Dtype, ModelConfig, QuantizationMethod

pytestmark = [
    pytest.mark.slow,
    pytest.mark.zoo,
    pytest.mark.filterwarnings("default"),  # of transformers' own code, which differs by family
]
torch.set_num_threads(1)

EVERY = os.environ.get("PROBEGRID_ZOO") == "all"
SOME = (
    "bloom", "cohere2", "dbrx", "deepseek_v3", "falcon", "gemma3n_text", "glm4_moe", "gpt2", "gpt_oss", "jamba",
    "llama4_text", "mixtral", "olmo3", "opt", "phi3", "qwen3_5_moe_text", "qwen3_next",
)  # fmt: skip
SOME_SEEING = ("aya_vision", "gemma3", "internvl", "kimi_k25", "llama4", "mistral3", "qwen2_5_vl", "smolvlm")
FAMILIES = zoo.text_families() if EVERY else SOME
SEEING = zoo.wrappers() if EVERY else SOME_SEEING
TOKENS = torch.tensor([[1, *range(20, 60)]])
NOT_CUT = ("hrm_text",)
"""It calls its blocks again and again, in two lists."""
SHARE_MATRICES = ("zamba", "zamba2")
BY_PLACE = ("zaya", "qwen3_5_moe_text")
"""Some of their products round by where in memory weights lie (the second's on CPUs without AVX-512): those of a mapped
file are copied to places of their own."""
SEES_AND_HEARS = "model.embed_tokens_extend."
"""Of Phi-4-multimodal, which transformers has among models of text."""

Find = Callable[[str], Checkpoint]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Find:
    """A random checkpoint of a family."""
    root = tmp_path_factory.mktemp("families")

    @functools.cache
    def make(family: str) -> Checkpoint:
        return find_checkpoint(ModelConfig(path=str(zoo.save(family, root / family))))

    return make


def stock_of(checkpoint: Checkpoint) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    seeing = checkpoint.config["model_type"] in zoo.wrappers()
    kind: Any = AutoModelForImageTextToText if seeing else AutoModelForCausalLM
    return kind.from_pretrained(checkpoint.name, dtype=torch.float32).eval()


def request(checkpoint: Checkpoint, method: str = "auto") -> ModelRequest:
    """With its second block waiting in CPU memory, as a GPU's would."""
    config = ModelConfig(path=checkpoint.name, dtype=Dtype.float32)
    blocks = facts_of(checkpoint).architecture.layers
    placement = Placement("cpu", (0,) * blocks, (1,), 0)
    return ModelRequest(checkpoint, config, QuantizationMethod(method), placement)


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(input_ids=TOKENS, use_cache=False).logits
    return found


class Read(Exception):
    """The layer that was asked for has been seen."""


def layers_of(model: Any, deepest: int, row: Sequence[int] | None = None) -> list[Tensor]:
    """The residual stream at layers 0 to ``deepest``, of ``TOKENS`` or of a row."""
    ids = TOKENS if row is None else torch.tensor([list(row)])
    seen: list[Tensor] = []

    def take(hidden: Any) -> None:
        seen.append((hidden[0] if isinstance(hidden, (tuple, list)) else hidden).clone())
        if len(seen) > deepest:
            raise Read

    blocks = decoder_blocks(model)
    hooks: list[Any] = [
        blocks[0].register_forward_pre_hook(
            lambda _module, args, named: take(args[0] if args else named["hidden_states"]), with_kwargs=True
        )
    ]
    hooks += [
        block.register_forward_hook(lambda _module, _args, output: take(output)) for block in blocks[:deepest]
    ]
    with torch.inference_mode(), pytest.raises(Read):
        model(input_ids=ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    return seen


def placed(model: Any, family: str) -> Any:
    """A model whose weights each lie in memory of their own, where that matters."""
    if family in BY_PLACE:
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_loaded_part_by_part_is_the_model(found: Find, family: str) -> None:
    if family in NOT_CUT:
        pytest.skip("its blocks are no list")
    loaded = load_model(request(found(family)))
    ours, stock = placed(loaded.model, family), placed(stock_of(found(family)), family)
    assert torch.equal(logits(ours), logits(stock))
    assert not [note for note in loaded.notes if "left out" in note]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_model_has_the_layers_of_the_whole_to_the_last_bit(found: Find, family: str) -> None:
    if family in NOT_CUT:
        pytest.skip("its blocks are no list")
    wanted = request(found(family))
    assert wanted.placement is not None
    whole = layers_of(placed(stock_of(found(family)), family), len(wanted.placement.blocks))
    for depth, expected in enumerate(whole):
        cut = placed(load_truncated(wanted, depth).model, family)
        assert torch.equal(layers_of(cut, depth)[-1], expected), f"layer {depth}"


@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_writes_to_what_a_block_gave(found: Find, family: str) -> None:
    """Where cards take turns, it is copied to the next as soon as the block is done (``border.note_written``)."""
    if family in NOT_CUT:
        pytest.skip("its blocks are no list")
    model, given = stock_of(found(family)), []
    for block in decoder_blocks(model):
        block.register_forward_hook(
            lambda _module, _args, output: (
                given.append((output, output.clone())) if isinstance(output, Tensor) else None
            )
        )
    logits(model)
    assert all(torch.equal(output, before) for output, before in given)


@pytest.mark.parametrize("family", FAMILIES)
def test_nf4_is_the_model_of_its_unpacked_weights(found: Find, family: str) -> None:
    """Every matrix of a block is packed, experts and those of layers that are none of torch's too."""
    if family in (*NOT_CUT, "rwkv"):
        pytest.skip("is not packed")
    model: Any = load_model(request(found(family), "nf4")).model
    stock = stock_of(found(family))
    for name, module in model.named_modules():
        put_unpacked(module, stock, name)
    difference = (logits(stock) - logits(model)).abs().max() / logits(stock).abs().max()
    assert difference < 1e-3
    share = packed_share(facts_of(found(family)).architecture, len(decoder_blocks(model)))
    assert bits_of_blocks(model)[4] == pytest.approx(share, abs=0.01)


def put_unpacked(module: nn.Module, stock: Any, name: str) -> None:
    """Give a module of the stock model the weights that ours unpacks, and let ours multiply in float32."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit
    from torch.nn.utils.parametrize import is_parametrized

    if isinstance(module, Linear4bit):
        module.compute_dtype = torch.float32
        weight = dequantize_4bit(module.weight.data, module.weight.quant_state).float()
        own = stock.get_submodule(name)
        own.weight.data = weight.t().contiguous() if type(own).__name__ == "Conv1D" else weight
    elif is_parametrized(module):
        own, held = stock.get_submodule(name), module.parametrizations
        for attribute in held:
            getattr(own, attribute).data = getattr(module, attribute).detach().float().clone()


@pytest.mark.parametrize(("family", "method"), [("llama", "int8"), ("mixtral", "nf4"), ("mixtral", "int8")])
def test_rounding_of_a_packed_model_is_not_taken_for_another_answer(
    found: Find, family: str, method: str
) -> None:
    """LLM.int8 rounds by all tokens of a pass, and NF4 multiplies in 16 bits: neither makes a model no causal one."""
    loaded = load_model(request(found(family), method))
    engine = Engine(
        loaded,
        NoText(),  # type: ignore[arg-type]
        [1, *range(20, 50)],
        DecodingConfig(max_new_tokens=4),
        (),
        suffixes=[[7, 8, 9], [*range(60, 80)]],
    )
    assert engine.report.used == "shared prefix"


def test_a_mixture_in_int8_is_no_model_that_sees_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even its plain pass of a row is another where more tokens follow, which send some to another expert."""
    monkeypatch.setattr(trial, "_TIMES", 0)
    checkpoint = find_checkpoint(ModelConfig(path=str(zoo.save("deepseek_v3", tmp_path, seed=1))))
    prefix, suffixes = [1, *range(20, 40)], [[41, 42, 43], [*range(50, 59)], [60, 61, 62, 63]]
    engine = Engine(
        load_model(request(checkpoint, "int8")),
        NoText(),  # type: ignore[arg-type]
        prefix,
        DecodingConfig(max_new_tokens=7),
        (),
        suffixes=suffixes,
    )
    assert engine.report.used == "one by one without a cache"
    assert 5e-5 < engine.report.distance < 0.5


class NoText:
    eos_token_id = None

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return "x"


def test_a_number_that_json_has_not_is_read_from_a_config(found: Find) -> None:
    assert found("mamba2").config["time_step_limit"][1] == float("inf")


@pytest.mark.parametrize("method", ["nf4", "int8"])
def test_a_family_that_scales_its_weights_in_place_is_not_packed(found: Find, method: str) -> None:
    with pytest.raises(CheckpointError, match="scales its weights in place"):
        load_model(request(found("rwkv"), method))


@pytest.mark.parametrize(
    "family", ["mixtral", "gpt_oss", "deepseek_v3", "llama4_text", "qwen3_next", "falcon"]
)
def test_int8_packs_the_experts_of_every_mixture(found: Find, family: str) -> None:
    model = load_model(request(found(family), "int8")).model
    share = packed_share(facts_of(found(family)).architecture, len(decoder_blocks(model)))
    assert bits_of_blocks(model)[8] == pytest.approx(share, abs=0.01)
    for name, module in model.named_modules():
        if name.endswith("experts") and hasattr(module, "parametrizations"):
            unpacked, packed = module.down_proj.float(), module.parametrizations["down_proj"]
            error = (unpacked - packed.original * packed[0].scales.view(*unpacked.shape[:-1], 1) / 127).abs()
            assert error.max() < 1e-6
    assert logits(model).isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_counts_every_weight_of_the_files(found: Find, family: str) -> None:
    if family in NOT_CUT:
        pytest.skip("its blocks are no list")
    facts = facts_of(found(family)).architecture
    headers = headers_of(found(family))
    assert headers is not None
    assert parameters(facts).total(facts.layers) == pytest.approx(
        sum(tensor.numel for name, tensor in headers.items() if SEES_AND_HEARS not in name), rel=0.01
    )
    made = by_skeleton(found(family))
    assert made.layers == facts.layers
    assert weight_bytes(made, Dtype.bfloat16, QuantizationMethod.none).total(2) == pytest.approx(
        weight_bytes(facts, Dtype.bfloat16, QuantizationMethod.none).total(2), rel=0.01
    )


@pytest.mark.parametrize("family", SEEING)
def test_the_language_model_of_an_image_text_model_answers_as_it_does(found: Find, family: str) -> None:
    """Its tower is not loaded: all that is in memory is what the plan counts."""
    loaded = load_model(request(found(family)))
    assert torch.equal(logits(loaded.model), logits(stock_of(found(family))))
    held = {id(each): each for each in loaded.model.parameters() if not each.is_meta}.values()
    facts = facts_of(found(family)).architecture
    assert parameters(facts).total(facts.layers) == pytest.approx(
        sum(each.numel() for each in held), rel=0.01
    )


PREFIX = [1, *range(20, 49)]
SUFFIXES = [[7, 8, 9, 50], [*range(60, 83)], [11, 12, 13, 14, 15]]
"""Longer together than any window."""
IN_PADDED_BATCHES = ("inkling2", "inkling_mm_model", "llama4", "mistral_large4", "qwen4_exp")
"""Whose attention is told more than its call says: chunks, an indexer's keys."""


@pytest.mark.parametrize("family", [family for family in SEEING if family != "paligemma"])
def test_answers_of_an_image_text_model_are_those_of_its_own_forward_pass(found: Find, family: str) -> None:
    engine = Engine(
        load_model(request(found(family))),
        NoText(),  # type: ignore[arg-type]
        PREFIX,
        DecodingConfig(max_new_tokens=4),
        (),
        suffixes=SUFFIXES,
    )
    assert engine.report.used == ("padded batches" if family in IN_PADDED_BATCHES else "shared prefix")
    answers = engine.answer(SUFFIXES, ["a", "b", "c"])
    assert answers is not None
    stock = stock_of(found(family))
    for suffix, (answer,) in zip(SUFFIXES, answers, strict=True):
        row = [*PREFIX, *suffix]
        for token, logprob in zip(answer.token_ids, answer.token_logprobs, strict=True):
            wanted = logprobs_behind(stock, row)
            assert float(wanted.max() - wanted[token]) < 2e-4  # the likeliest, or as likely
            assert abs(float(wanted[token]) - logprob) < 2e-4
            row.append(token)


@pytest.mark.parametrize("with_cache", [True, False])
def test_a_model_that_reads_its_prompts_both_ways_answers_as_its_own_generate(
    found: Find, with_cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token types are what its processor gives a prompt: its generate takes them, and gives answers others."""

    class Uncached(OneByOneDecoder):
        def __init__(self, model: Any, prefix: Sequence[int], *, cached: bool) -> None:
            if cached:
                raise RuntimeError("no cache")
            super().__init__(model, prefix, cached=cached)

    if not with_cache:
        monkeypatch.setattr(engine, "OneByOneDecoder", Uncached)
    ours = Engine(
        load_model(request(found("paligemma"))),
        NoText(),  # type: ignore[arg-type]
        PREFIX,
        DecodingConfig(max_new_tokens=6, do_sample=True, num_generations=1, temperature=1e-4),
        (),
        suffixes=SUFFIXES,
    )
    assert ours.report.used == ("one by one" if with_cache else "one by one without a cache")
    reason = "paligemma reads each prompt both ways"
    assert [ours.report.passed_over[way] for way in ("shared prefix", "padded batches")] == [reason] * 2
    answers = ours.answer(SUFFIXES, ["a", "b", "c"])
    assert answers is not None
    for suffix, (answer, sample) in zip(SUFFIXES, answers, strict=True):
        tokens, logprobs = generated(stock_of(found("paligemma")), [*PREFIX, *suffix], 6)
        assert list(answer.token_ids) == list(sample.token_ids) == tokens
        torch.testing.assert_close(torch.tensor(answer.token_logprobs), logprobs, rtol=1e-4, atol=1e-4)


def test_states_of_an_answer_to_a_prompt_that_is_read_both_ways_are_those_it_was_written_with(
    found: Find,
) -> None:
    """Of the whole model's own generate, step by step, each token's read as the token behind it was chosen."""
    stock = stock_of(found("paligemma"))
    wanted = request(found("paligemma"))
    assert wanted.placement is not None
    deepest = len(wanted.placement.blocks) - 1
    prompts = [[*PREFIX, *suffix] for suffix in SUFFIXES]
    made = [steps_of(stock, prompt, 6) for prompt in prompts]
    rows = [
        # the last token was chosen and never read
        [*prompt, *each.sequences[0, len(prompt) : -1].tolist()]
        for prompt, each in zip(prompts, made, strict=True)
    ]
    spans = [[(token, token + 1) for token in range(len(row))] for row in rows]
    lengths = [len(prompt) for prompt in prompts]
    passages = list(map(Row, rows, spans, lengths))
    cut, layers = load_truncated(wanted, deepest).model, list(range(deepest + 1))
    _, way = rows_that_agree(cut, layers, passages)
    assert way is Rows.padded
    for rows_together in (way, Rows.alone):
        read = ResidualReader(cut, layers, rows_together).read(rows, spans, torch.float32, lengths)
        for layer in layers:
            states = torch.cat([step[layer][0] for each in made for step in each.hidden_states])
            torch.testing.assert_close(read[layer], states, rtol=1e-4, atol=1e-5)
    # told nothing of where the prompts end, it is another model's answer
    all_prompt = ResidualReader(cut, [deepest], way).read(rows, spans, torch.float32)[deepest]
    assert (all_prompt - read[deepest]).norm() > 0.01 * all_prompt.norm()


def steps_of(stock: Any, row: list[int], steps: int) -> Any:
    """What stock generate makes of a prompt: tokens, logits and hidden states of each step."""
    ids = torch.tensor([row])
    stock.generation_config.eos_token_id = None
    return stock.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        token_type_ids=torch.zeros_like(ids),
        max_new_tokens=steps,
        do_sample=False,
        output_logits=True,
        output_hidden_states=True,
        return_dict_in_generate=True,
    )


def generated(stock: Any, row: list[int], steps: int) -> tuple[list[int], Tensor]:
    """The tokens that stock generate puts behind a prompt, and their log-probabilities."""
    made = steps_of(stock, row, steps)
    tokens = made.sequences[0, len(row) :]
    logprobs = torch.cat(made.logits).log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return tokens.tolist(), logprobs


def logprobs_behind(stock: Any, row: list[int]) -> Tensor:
    """[V] behind a row, by the whole model with its tower."""
    ids = torch.tensor([row])
    with torch.inference_mode():
        found: Tensor = stock(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return found[0, -1].double().log_softmax(-1)


@pytest.mark.parametrize("family", SEEING)
def test_activations_of_an_image_text_model_are_its_own(found: Find, family: str) -> None:
    wanted = request(found(family))
    assert wanted.placement is not None
    deepest = len(wanted.placement.blocks) - 1
    layers = list(range(deepest + 1))
    stock, cut = stock_of(found(family)), load_truncated(wanted, deepest).model
    rows = [[*PREFIX, *suffix] for suffix in SUFFIXES]
    spans = [[(len(row) - 1, len(row)), (3, 9)] for row in rows]
    passages = list(map(Row, rows, spans))
    _, way = rows_that_agree(cut, layers, passages)
    ahead = prefix_of(passages) if way is Rows.shared else []
    read = ResidualReader(cut, layers, way, ahead).read(rows, spans, torch.float32)
    streams = [layers_of(stock, deepest, row) for row in rows]
    for layer in layers:
        vectors = [
            streams[place][layer][0, start:end].flatten(1).mean(0)
            for place, of_row in enumerate(spans)
            for start, end in of_row
        ]
        torch.testing.assert_close(read[layer], torch.stack(vectors), rtol=2e-4, atol=2e-4)
