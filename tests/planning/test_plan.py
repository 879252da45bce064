"""Plans: what they promise, what they refuse, and that they need nothing but Python."""

from __future__ import annotations

import io
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import probegrid.conf
from probegrid.errors import PlanError
from probegrid.hardware.devices import GPUS, Cpu, Hardware, hardware_for
from probegrid.planning.describe import describe, grid_table
from probegrid.planning.placement import placements
from probegrid.planning.plan import Plan, plan
from probegrid.planning.requirements import Facts
from probegrid.planning.workload import (
    PASS_TOKENS,
    TOKEN_ESTIMATES,
    Batch,
    TokenEstimate,
    Workload,
    activation_workload,
    pass_tokens,
    question_workload,
)
from probegrid.schema import (
    Architecture,
    DecodingConfig,
    DeviceMapConfig,
    Dtype,
    PlacementStrategy,
    PromptConfig,
    QuantizationMethod,
)

MODELS = Path(probegrid.conf.__file__).parent / "model"
NF4, INT8, NONE = QuantizationMethod.nf4, QuantizationMethod.int8, QuantizationMethod.none
FOUR_11GB = DeviceMapConfig(gpus=4, gpu_memory_gb=11, overhead_gb=0.8)
TRIVIA = question_workload(400, PromptConfig(), DecodingConfig(), TOKEN_ESTIMATES["trivia_qa"])


def facts_of(name: str) -> Architecture:
    return Architecture(**yaml.safe_load((MODELS / f"{name}.yaml").read_text())["architecture"])


def make(
    model: str | Architecture,
    device_map: DeviceMapConfig,
    method: QuantizationMethod = NF4,
    workload: Workload = TRIVIA,
    hardware: Hardware | None = None,
) -> Plan:
    return plan(
        facts_of(model) if isinstance(model, str) else model,
        dtype=Dtype.bfloat16,
        quantization=method,
        device_map=device_map,
        hardware=hardware or hardware_for(device_map),
        workload=workload,
    )


H200 = Hardware(gpus=(GPUS["H200"],))


@pytest.mark.parametrize(("size", "peak_gb"), [(100, 52.8), (200, 61.9), (400, 80.0)])
def test_the_peak_is_the_one_measured_on_an_h200(size: int, peak_gb: float) -> None:
    """`benchmarks/answers.py --preset h200`: 130 to 260 own tokens, so that a row may grow to 276."""
    work = Workload(400, prompt_tokens=260, prefix_tokens=900, new_tokens=16)
    facts = Facts(facts_of("llama70b"), Dtype.bfloat16, NF4, PlacementStrategy.single, 0.0, H200, work)
    demand = facts.demand(Batch(size, 16384))
    (placement,) = placements(demand, facts.gpu_budgets, facts.strategy)
    assert placement.loads(demand)[0].total / 1e9 == pytest.approx(peak_gb, rel=0.01)


def test_the_time_is_the_one_measured_on_an_h200() -> None:
    workload = Workload(400, prompt_tokens=195, prefix_tokens=900, new_tokens=16, batch_size=400)
    found = make("llama70b", DeviceMapConfig(gpus=1), NF4, workload, H200)
    assert found.duration.total_s == pytest.approx(23.7, rel=0.2)


def test_layer_22_takes_the_memory_measured_on_an_h200() -> None:
    """`benchmarks/activations.py --preset h200`: passes of 16384 tokens beside 39.75 GB of weights."""
    work = activation_workload(500, 22)
    facts = Facts(facts_of("llama70b"), Dtype.bfloat16, NONE, PlacementStrategy.single, 0.0, H200, work)
    weights = facts.weights.total(22, with_head=False)
    assert (weights + facts.activation_bytes(Batch(46, 16384))) / 1e9 == pytest.approx(43.7, rel=0.01)


def test_123b_runs_on_four_11gb_cards_in_nf4() -> None:
    found = make("mistral_large", FOUR_11GB)
    assert found.gpus == 4
    assert found.placement.streamed
    assert found.cpu_bytes >= len(found.placement.streamed) * 0.7e9
    assert found.batch_size > 1, "a batch pays for the trip"
    assert found.weight_bytes == pytest.approx(64.5e9, rel=0.01)


def test_streaming_at_the_planned_batch_beats_one_by_one() -> None:
    one_by_one = make("mistral_large", FOUR_11GB, workload=replace(TRIVIA, batch_size=1))
    assert make("mistral_large", FOUR_11GB).tokens_per_s > 3 * one_by_one.tokens_per_s


def test_a_small_model_takes_one_card_and_streams_nothing() -> None:
    found = make("llama1b", FOUR_11GB, NONE)
    assert (found.gpus, found.placement.streamed, found.cpu_bytes) == (1, (), 0)


def test_layer_22_of_a_70b_fits_one_80gb_card_in_bf16() -> None:
    two_h100 = DeviceMapConfig(gpus=2, gpu_memory_gb=80)
    found = make("llama33_70b", two_h100, NONE, activation_workload(500, 22, TOKEN_ESTIMATES["ntml"]))
    assert (found.gpus, found.blocks, found.placement.head) == (1, 22, None)
    assert found.loaded_parameters / 1e9 == pytest.approx(19.9, abs=0.05)
    assert found.download_bytes / 1e9 == pytest.approx(39.8, abs=0.1)
    assert found.kv_bytes_per_token == 0


def test_a_pass_through_small_blocks_is_longer() -> None:
    """Kernels of a 135M's blocks take less time than launching them, with as many tokens as fill an 8B's."""
    h200, work = Hardware(gpus=(GPUS["H200"],)), activation_workload(3000, 16, TokenEstimate(conversation=24))
    small, large = (
        make(name, DeviceMapConfig(gpus=1), NONE, work, h200).limits for name in ("smollm2_135m", "llama8b")
    )
    assert small.pass_tokens == 3000 * 24
    assert 0 < large.pass_tokens <= PASS_TOKENS["cuda"]


def test_the_passes_of_a_run_are_as_many_as_cards_in_turn_take_at_once() -> None:
    """The first begins with the prefix: without room for it a batch took twice as many, and each block came twice."""
    hardware, own = hardware_for(FOUR_11GB), TRIVIA.prompt_tokens
    facts = Facts(facts_of("llama70b"), Dtype.bfloat16, NF4, PlacementStrategy.auto, 0.8, hardware, TRIVIA)
    limit = facts.pass_limit(Batch(400, 16384), abreast=4)
    tokens = TRIVIA.prefix_tokens + 400 * own
    assert math.ceil(tokens / pass_tokens(tokens, limit, stages=1, abreast=4, longest=own)) == 4
    assert facts.tokens_of_a_pass(Batch(400, 16384), abreast=4) == limit < 16384


def test_few_short_questions_leave_passes_long_enough_for_longer_ones() -> None:
    """Other readings of the cell (p(true), activations of answers) keep to the same limit."""
    few = replace(TRIVIA, examples=8, prefix_tokens=0)
    found = make("llama8b", replace(FOUR_11GB, gpu_memory_gb=4), NF4, few)
    assert found.placement.stages > 1
    assert found.limits.pass_tokens >= 1024


def test_activations_on_several_cards_take_as_long_as_on_one() -> None:
    """A batch is waited for before the next begins, so that no two cards compute at once."""
    work = activation_workload(400, 32, TokenEstimate(conversation=300))
    alone, spread = (
        make(
            "llama8b",
            DeviceMapConfig(strategy=PlacementStrategy.balanced),
            NONE,
            work,
            Hardware(gpus=(card,) * count),
        )
        for card in [GPUS["H100 80GB"]]
        for count in (1, 4)
    )
    assert spread.gpus == 4
    assert spread.duration.prefill_s == pytest.approx(alone.duration.prefill_s, rel=0.01)


def test_embeddings_alone_need_no_block() -> None:
    found = make("llama8b", FOUR_11GB, NONE, activation_workload(10, 0))
    assert (found.blocks, found.placement.blocks) == (0, ())


def test_without_gpus_the_cpu_computes() -> None:
    found = make("llama1b", DeviceMapConfig(strategy=PlacementStrategy.cpu), NONE)
    assert (found.gpus, found.gpu_hours) == (0, 0)
    assert found.cpu_bytes > found.weight_bytes


def test_batch_asked_for_is_kept() -> None:
    assert make("llama8b", FOUR_11GB, workload=replace(TRIVIA, batch_size=7)).batch_size == 7


def test_samples_cost_memory_and_time() -> None:
    sampled = replace(TRIVIA, generations=11, batch_size=8)
    greedy = replace(sampled, generations=1)
    assert (
        make("llama8b", FOUR_11GB, workload=sampled).gpu_bytes
        > make("llama8b", FOUR_11GB, workload=greedy).gpu_bytes
    )


def test_resources_follow_the_plan() -> None:
    found = make("mistral_large", FOUR_11GB)
    resources = found.resources()
    assert resources.gpus == 4
    assert resources.mem_gb is not None
    assert resources.mem_gb * 1e9 > found.cpu_bytes
    assert resources.timeout_min is not None
    assert resources.timeout_min > found.hours * 60


def test_prompt_past_the_context_is_noted() -> None:
    (note,) = make(replace(facts_of("llama8b"), context=128), FOUR_11GB).notes
    assert "num_few_shot" in note


REFUSED: list[tuple[str, QuantizationMethod, DeviceMapConfig, str]] = [
    (
        "mistral_large",
        NONE,
        DeviceMapConfig(gpus=4, gpu_memory_gb=24, cpu_memory_gb=64),
        r"of CPU memory for \d+ of 88 blocks and 64\.0 GB are given; .*`quantization=nf4` works",
    ),
    (
        "llama70b",
        NONE,
        DeviceMapConfig(strategy=PlacementStrategy.single, gpus=1, gpu_memory_gb=80),
        r"needs 141\.\d GB on one GPU.*`quantization=int8` works .* and `quantization=nf4` works",
    ),
    (
        "qwen72b",
        NONE,
        DeviceMapConfig(strategy=PlacementStrategy.cpu, cpu_memory_gb=64),
        r"needs 145\.\d GB of CPU memory and 64\.0 GB are given; `quantization=nf4` works",
    ),
    (
        "mistral_large",
        NF4,
        DeviceMapConfig(gpus=1, gpu_memory_gb=2, cpu_memory_gb=128),
        r"two blocks of 0\.7 GB.*`device_map\.gpu_memory_gb=11` works",
    ),
    (
        "llama8b",
        NONE,
        DeviceMapConfig(strategy=PlacementStrategy.single, gpus=1, gpu_memory_gb=4, cpu_memory_gb=2),
        r"needs 16\.1 GB on one GPU.*`device_map\.gpu_memory_gb=24` works.*`quantization=nf4 ",
    ),
]


@pytest.mark.parametrize(("model", "method", "device_map", "message"), REFUSED)
def test_refusals_say_why_and_what_works(
    model: str, method: QuantizationMethod, device_map: DeviceMapConfig, message: str
) -> None:
    with pytest.raises(PlanError, match=message) as refusal:
        make(model, device_map, method)
    assert "\n" not in str(refusal.value)


def test_a_batch_too_large_is_refused_with_auto() -> None:
    with pytest.raises(PlanError, match=r"a batch of 400.*`decoding\.batch_size=auto` works"):
        make("mistral_large", FOUR_11GB, workload=replace(TRIVIA, prompt_tokens=500, batch_size=400))


def test_what_is_needed_never_reads_like_what_is_given() -> None:
    needed = make("llama1b", DeviceMapConfig(gpus=0), NONE, replace(TRIVIA, batch_size=1)).cpu_bytes / 1e9
    for lacks_gb in (0.001, needed - 0.0005):
        given = DeviceMapConfig(gpus=0, cpu_memory_gb=needed - lacks_gb)
        with pytest.raises(PlanError) as refused:
            make("llama1b", given, NONE, replace(TRIVIA, batch_size=1))
        numbers = re.match(
            r"This needs ([\d.]+ GB) of CPU memory and ([\d.]+ .B) are given", str(refused.value)
        )
        assert numbers is not None
        assert numbers[1] != numbers[2] != "0.0 MB"


def test_strategies_that_need_a_gpu_say_so() -> None:
    for strategy in (PlacementStrategy.single, PlacementStrategy.balanced):
        with pytest.raises(PlanError, match="needs a GPU and none is given"):
            make("llama1b", DeviceMapConfig(strategy=strategy))


@pytest.mark.parametrize("layer", [-1, 33])
def test_layers_that_are_not_there_are_refused(layer: int) -> None:
    with pytest.raises(PlanError, match=r"takes 0 \(the embeddings\) to 32"):
        make("llama8b", FOUR_11GB, workload=activation_workload(10, layer))


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    kv_heads = draw(st.sampled_from([1, 2, 8]))
    experts = draw(st.sampled_from([1, 1, 4]))
    return Architecture(
        layers=draw(st.integers(1, 60)),
        hidden=draw(st.sampled_from([512, 4096, 8192])),
        heads=kv_heads * draw(st.integers(1, 8)),
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([64, 128])),
        intermediate=draw(st.sampled_from([1024, 14336, 28672])),
        vocab=draw(st.sampled_from([32_000, 128_256])),
        experts=experts,
        experts_per_token=min(2, experts),
        tied_embeddings=draw(st.booleans()),
        context=131_072,
    )


@settings(max_examples=60, deadline=None)
@given(
    facts=architectures(),
    method=st.sampled_from(QuantizationMethod),
    strategy=st.sampled_from([PlacementStrategy.auto, PlacementStrategy.balanced, PlacementStrategy.single]),
    gpus=st.integers(1, 4),
    memory_gb=st.floats(2, 80),
    more_gb=st.floats(0, 40),
    cpu_memory_gb=st.none() | st.floats(1, 300),
)
def test_plans_keep_to_budgets_and_more_memory_is_never_worse(
    facts: Architecture,
    method: QuantizationMethod,
    strategy: PlacementStrategy,
    gpus: int,
    memory_gb: float,
    more_gb: float,
    cpu_memory_gb: float | None,
) -> None:
    gpu, refusals = GPUS["RTX 3090"], list[str]()

    def attempt(memory_gb: float) -> Plan | None:
        device_map = DeviceMapConfig(strategy=strategy, gpus=gpus, cpu_memory_gb=cpu_memory_gb)
        hardware = hardware_for(device_map, visible=[replace(gpu, memory_gb=memory_gb)] * gpus)
        try:
            return make(facts, device_map, method, TRIVIA, hardware)
        except PlanError as refusal:
            refusals.append(str(refusal))
            return None

    less, more = attempt(memory_gb), attempt(memory_gb + more_gb)
    assert all("works" in refusal for refusal in refusals)
    for found, limit_gb in ((less, memory_gb), (more, memory_gb + more_gb)):
        if found is None:
            continue
        for device, load in found.loads.items():
            budget_gb = cpu_memory_gb if device == "cpu" else limit_gb - 1.0
            assert budget_gb is None or load.total <= budget_gb * 1e9 + 1
        assert sum(load.weights for load in found.loads.values()) == found.weight_bytes
        assert json.loads(json.dumps(found.as_dict()))["batch_size"] == found.batch_size
    if less is not None:
        assert more is not None
        assert more.largest_batch >= less.largest_batch
        if strategy is PlacementStrategy.balanced:  # equal shares of the bytes are not the fastest
            return
        # a plan may take 5% more than the fastest, and stages, which is how what fits is held, a little more than cards
        # in turn; what fits fewer GPUs leaves others free, for copies of the model
        seconds = [found.duration.total_s * max(1, found.gpus) for found in (more, less)]
        assert (
            more.duration.total_s <= 1.1 * less.duration.total_s + 1e-9
            or seconds[0] <= 1.1 * seconds[1] + 1e-9
        )


def test_a_plan_as_lines_and_a_grid_as_a_table() -> None:
    rich_console = pytest.importorskip("rich.console")
    found = make("mixtral8x7b", FOUR_11GB)
    text = describe(found)
    assert "46.70B parameters, 12.88B of them active" in text
    assert text.count("GPU ") == 4
    rows: list[tuple[str, Plan | PlanError]] = [
        ("mixtral8x7b-nf4", found),
        ("other", PlanError("It is too large.")),
    ]
    console = rich_console.Console(width=140, record=True, file=io.StringIO())
    console.print(grid_table(rows, ["mixtral8x7b", "other"]))
    drawn = console.export_text()
    assert "1 of 2 work" in drawn
    assert "It is too large." in drawn


def test_the_hours_of_a_grid_count_one_load_for_cells_that_share_a_model() -> None:
    found = make("mixtral8x7b", FOUR_11GB)
    two: list[tuple[str, Plan | PlanError | None]] = [("a", found), ("b", found)]
    alone, shared = grid_table(two, ["a", "b"]), grid_table(two, ["a", "a"])
    load, reading = found.load_s / 3600, found.duration.total_s / 3600
    assert found.load_s > 60
    for table, hours in ((alone, 2 * load + 2 * reading), (shared, load + 2 * reading)):
        assert [column.footer for column in table.columns[-2:]] == [f"{hours:.2f}", f"{4 * hours:.2f}"]


WITHOUT_LIBRARIES = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "numpy", "transformers", "accelerate", "bitsandbytes"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
from probegrid.hardware.devices import hardware_for
from probegrid.planning.plan import plan
from probegrid.planning.describe import describe
from probegrid.planning.workload import question_workload
from probegrid.schema import *
facts = Architecture(layers=88, hidden=12288, heads=96, kv_heads=8, head_dim=128, intermediate=28672,
                     vocab=32768, context=131072)
devices = DeviceMapConfig(gpus=4, gpu_memory_gb=11)
for method in (QuantizationMethod.none, QuantizationMethod.int8, QuantizationMethod.nf4):
    print(describe(plan(facts, dtype=Dtype.bfloat16, quantization=method, device_map=devices,
                        hardware=hardware_for(devices),
                        workload=question_workload(400, PromptConfig(), DecodingConfig()))))
"""


def test_planning_imports_no_heavy_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARIES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("streamed") >= 1


def test_passes_abreast_are_planned_as_long_as_they_are() -> None:
    short = replace(TRIVIA, examples=400, prompt_tokens=50, longest_prompt=65, prefix_tokens=260)
    cards = Hardware((replace(GPUS["H100 80GB"], memory_gb=10.5),) * 4, Cpu())
    found = make("llama70b", DeviceMapConfig(gpus=4, overhead_gb=0.5), workload=short, hardware=cards)
    assert (found.batch_size, found.placement.abreast) == (400, 4)
    assert found.limits.pass_tokens == (260 + 400 * 50) // 4 + 65  # a quarter of all, and no row is divided
    working = [load.activations for device, load in found.loads.items() if device != "cpu"]
    assert min(working) >= found.activation_bytes > 0.9 * max(working) / 2
