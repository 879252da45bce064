"""Layer 22 of a 70B from 22 blocks on one GPU, and the usual way on two: the GPU presets of ``activations.py``.

Random weights of Llama-3.3-70B's shape; real conversations, tokenized by the embedded tokenizer. What is timed is the
project's own loading and collection. ``first_blocks`` needs one GPU and a disk for 22 blocks; ``usual_way`` needs two
GPUs and no disk, since its blocks are drawn where they lie.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedModel

from answers import matmul_rate
from probegrid.data.ntml import NtmlConfig
from probegrid.data.ntml import load as load_ntml
from probegrid.hardware.devices import hardware_for
from probegrid.models.blocks import execution_device
from probegrid.models.build import assemble
from probegrid.models.checkpoint import EMBEDDED, find_checkpoint
from probegrid.models.load import LoadedModel, load_tokenizer
from probegrid.models.load_truncated import load_truncated
from probegrid.models.request import ModelRequest
from probegrid.planning.families import architecture_from_config
from probegrid.planning.placement import Placement
from probegrid.planning.plan import Plan, plan
from probegrid.planning.workload import activation_workload
from probegrid.progress import Progress
from probegrid.readings.activations import read_activations
from probegrid.readings.identity import describe_model
from probegrid.readings.spans import Passage, Position, statement_passages
from probegrid.readings.templates import ChatTemplate
from probegrid.schema import DeviceMapConfig, Dtype, ModelConfig, PlacementStrategy, QuantizationMethod
from random_models import RandomParts, config, write_checkpoint

DTYPE = torch.bfloat16
ONE_80GB = DeviceMapConfig(strategy=PlacementStrategy.single, gpus=1, gpu_memory_gb=80.0)
TWO_80GB = DeviceMapConfig(
    strategy=PlacementStrategy.auto, gpus=2, gpu_memory_gb=80.0
)  # conf/device_map/2xh100
console = Console(width=120, highlight=False)


@dataclass(frozen=True)
class Setting:
    """What the presets differ in."""

    shape: str
    device: str
    """Where random weights are drawn for the checkpoint."""
    layer: int
    blocks_per_file: int
    one_gpu: DeviceMapConfig
    two_gpus: DeviceMapConfig
    sample: int
    """Statements that are read the usual way."""
    padded_sample: int
    """Of those, the ones that are read padded to ``width`` too."""
    width: int
    repeats: int


H200 = Setting(
    shape="llama70b", device="cuda", layer=22, blocks_per_file=2, one_gpu=ONE_80GB, two_gpus=TWO_80GB, sample=120,
    padded_sample=8, width=4096, repeats=3,
)  # fmt: skip
REHEARSAL = Setting(
    shape="tiny", device="cpu", layer=2, blocks_per_file=1, one_gpu=DeviceMapConfig(strategy=PlacementStrategy.cpu),
    two_gpus=DeviceMapConfig(strategy=PlacementStrategy.balanced, gpus=2, gpu_memory_gb=80.0), sample=4,
    padded_sample=2, width=512, repeats=2,
)  # fmt: skip


def first_blocks(setting: Setting, conversations: Path, scratch: Path | None) -> float:
    """Write a checkpoint that lacks its later files, load its first blocks, read a layer; median seconds of reading.

    Args:
        setting: shapes and devices.
        conversations: NTML records.
        scratch: where the checkpoint and the readings go, for as long as this runs; None: the system's own place.
    """
    layer = setting.layer
    with tempfile.TemporaryDirectory(dir=scratch) as temporary:
        folder = Path(temporary) / "checkpoint"
        folder.mkdir()
        started = time.perf_counter()
        written = write_checkpoint(
            config(setting.shape), folder, device=setting.device, dtype=DTYPE, blocks=layer,
            blocks_per_file=setting.blocks_per_file,
        )  # fmt: skip
        took = time.perf_counter() - started
        console.print(
            f"wrote {written / 1e9:.1f} GB in {took:.1f} s: the embeddings and {layer} of "
            f"{config(setting.shape).num_hidden_layers} blocks; the files of the others are absent"
        )
        reset_peaks()
        planned = make_plan(setting, setting.one_gpu, layer)
        model_config = ModelConfig(path=str(folder), dtype=Dtype.bfloat16)
        checkpoint = find_checkpoint(model_config)
        request = ModelRequest(checkpoint, model_config, QuantizationMethod.none, planned.placement)
        loaded = load_truncated(request, layer)
        console.print(
            f"loaded in {loaded.load_s:.1f} s: {written / loaded.load_s / 1e9:.2f} GB/s (files just written may come "
            f"from memory); {loaded.note.replace(temporary, '...')}"
        )
        say_memory("after loading", planned)
        passages = read_conversations(conversations)
        described = describe_model(checkpoint, model_config, QuantizationMethod.none)
        seconds = timed_readings(setting.repeats, loaded, passages, [layer], Path(temporary), described)
        say_memory("peak of the reading", planned)
        say_bound(loaded.model, passages, seconds)
    return seconds


def usual_way(setting: Setting, conversations: Path, scratch: Path | None, ours_s: float | None) -> None:
    """The whole model over two GPUs: one pass a statement with all hidden states, then our reading of all layers.

    Ours is held to the memory that its ``device_map`` describes, the usual way to that of the machine. The
    usual way moves between GPUs by our own hooks, which cost less than accelerate's.

    Args:
        setting: shapes and devices.
        conversations: NTML records.
        scratch: where the readings go, for as long as this runs.
        ours_s: what ``first_blocks`` returned, on a machine of the same GPU.
    """
    of_shape = config(setting.shape)
    depth = of_shape.num_hidden_layers
    planned = make_plan(setting, setting.two_gpus, depth)
    placement = with_head(planned.placement)
    started = time.perf_counter()
    model = assemble(of_shape, placement, RandomParts(of_shape, DTYPE), DTYPE)
    synchronize()
    console.print(
        f"drew {depth} blocks in {time.perf_counter() - started:.1f} s: "
        f"{', '.join(f'{placement.blocks.count(gpu)} on GPU {gpu}' for gpu in placement.gpus)}, the head on the last"
    )
    say_memory("with all weights", planned)
    passages = read_conversations(conversations)
    statements = [(passage, end - 1) for passage in passages for _, end in passage.spans]
    usual = extrapolated(model, statements, setting.sample, None, setting.repeats)
    padded = extrapolated(model, statements, setting.padded_sample, setting.width, 1)
    say_memory("peak of the usual way", planned)
    gc.collect()
    reset_peaks()
    cap(setting.two_gpus)
    loaded = LoadedModel(model, 0.0)
    with tempfile.TemporaryDirectory(dir=scratch) as temporary:
        one = timed_readings(setting.repeats, loaded, passages, [setting.layer], Path(temporary), {})
        timed_readings(1, loaded, passages, range(depth + 1), Path(temporary), {})
    say_memory("peak of our readings", planned)
    for name, seconds in (("this model", one), ("its own blocks on one GPU (--ours-seconds)", ours_s)):
        if seconds is not None:
            console.print(
                f"layer {setting.layer} from {name}: {seconds:.2f} s; the usual way takes {usual / seconds:.1f} times "
                f"as long, padded to {setting.width} {padded / seconds:.0f} times"
            )


def make_plan(setting: Setting, device_map: DeviceMapConfig, depth: int) -> Plan:
    """The plan for GPUs as ``device_map`` describes them, whatever this machine has."""
    return plan(
        architecture_from_config(config(setting.shape).to_dict()), dtype=Dtype.bfloat16,
        quantization=QuantizationMethod.none, device_map=device_map, hardware=hardware_for(device_map),
        workload=activation_workload(500, depth),
    )  # fmt: skip


def with_head(placement: Placement) -> Placement:
    """The same with a head on the last GPU: the usual way computes logits."""
    return Placement(placement.embedding, placement.blocks, placement.streamed, placement.blocks[-1])


def read_conversations(file: Path) -> tuple[Passage, ...]:
    """All conversations of an NTML file as the flow of a cell tokenizes them, by the embedded tokenizer."""
    model_config = ModelConfig(path=EMBEDDED)
    data = load_ntml(NtmlConfig(path=str(file), num_samples=1_000_000))
    checkpoint = find_checkpoint(model_config)
    tokenizer = load_tokenizer(checkpoint, model_config)
    template = ChatTemplate.of_conversations(tokenizer, model_config)
    passages = statement_passages(
        data, Position.statement_end, tokenizer, template, context=checkpoint.context
    )
    tokens = [len(passage.token_ids) for passage in passages]
    console.print(
        f"{file.name}: {len(passages)} conversations, {sum(len(passage.spans) for passage in passages)} statements, "
        f"{sum(tokens)} tokens ({min(tokens)} to {max(tokens)})"
    )
    return passages


def timed_readings(
    repeats: int,
    loaded: LoadedModel,
    passages: Sequence[Passage],
    layers: Sequence[int],
    folder: Path,
    described: dict[str, Any],
) -> float:
    """Read the layers into fresh stores, say how fast, and return the median seconds, writing included."""
    times: list[float] = []
    for repeat in range(repeats):
        store = folder / f"store-{len(layers)}-{repeat}"
        started = time.perf_counter()
        with Progress() as progress:
            reading = read_activations(
                passages, layers, description=described, store_dir=str(store), open_model=lambda _: loaded,
                progress=progress,
            )  # fmt: skip
        times.append(time.perf_counter() - started)
    stored = sum(part.stat().st_size for part in store.rglob("*") if part.is_file())
    seconds = statistics.median(times)
    console.print(
        f"read {len(layers)} layer(s), to layer {layers[-1]}: median {seconds:.2f} s of "
        f"{' '.join(f'{value:.2f}' for value in times)} (forward passes of the last {reading.read_s:.2f}); "
        f"{len(passages) / seconds:.1f} conversations/s, {reading.read_tokens / seconds:.0f} tokens/s; "
        f"{stored / 1e6:.1f} MB stored"
    )
    return seconds


def extrapolated(
    model: PreTrainedModel,
    statements: Sequence[tuple[Passage, int]],
    sample: int,
    width: int | None,
    repeats: int,
) -> float:
    """Seconds of all statements, one pass each with all hidden states, from an even sample of them.

    Args:
        model: with its head.
        statements: the passage of each, and the token that is read.
        sample: passes that are timed.
        width: tokens that every pass is padded to; None: not padded.
        repeats: the median is taken over so many rounds.
    """
    step = max(1, len(statements) // sample)
    chosen = statements[step // 2 :: step][:sample]
    one_pass(model, *chosen[0], width)
    rounds = [
        timed(lambda: [one_pass(model, passage, token, width) for passage, token in chosen])
        for _ in range(repeats)
    ]
    seconds = statistics.median(rounds) / len(chosen)
    total = seconds * len(statements)
    console.print(
        f"the usual way, one pass a statement, all hidden states, {f'padded to {width}' if width else 'not padded'}: "
        f"{seconds * 1e3:.0f} ms a pass over {len(chosen)} passes; extrapolated to {len(statements)}: {total:.0f} s"
    )
    return total


def one_pass(model: Any, passage: Passage, token: int, width: int | None) -> torch.Tensor:
    """All layers of one statement's token, [layers + 1, d], on the CPU."""
    ids = torch.tensor([passage.token_ids])
    mask = torch.ones_like(ids)
    if width is not None:
        ids, mask = (torch.nn.functional.pad(row, (0, width - row.shape[1])) for row in (ids, mask))
    device = execution_device(model.get_input_embeddings())
    with torch.inference_mode():
        output = model(
            ids.to(device), attention_mask=mask.to(device), output_hidden_states=True, use_cache=False
        )
    return torch.stack([states[0, token].cpu() for states in output.hidden_states])


def timed(call: Callable[[], object]) -> float:
    """Wall-clock seconds of a call, the work of all devices included."""
    synchronize()
    started = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - started


def synchronize() -> None:
    """Wait for every GPU."""
    for gpu in range(torch.cuda.device_count()):
        torch.cuda.synchronize(gpu)


def reset_peaks() -> None:
    """Free what is not used and count each GPU's peak from here."""
    for gpu in range(torch.cuda.device_count()):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(gpu)


def cap(device_map: DeviceMapConfig) -> None:
    """Let torch hold no more on each GPU than ``device_map`` says there is."""
    for gpu in range(torch.cuda.device_count()):
        assert device_map.gpu_memory_gb is not None
        total = torch.cuda.get_device_properties(gpu).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, device_map.gpu_memory_gb * 1e9 / total), gpu)
        console.print(f"GPU {gpu}: from here no more than {device_map.gpu_memory_gb:.0f} GB may be held")


def say_memory(when: str, planned: Plan) -> None:
    """What each GPU holds and has held, beside the plan."""
    for gpu in range(torch.cuda.device_count()):
        held, peak = torch.cuda.memory_allocated(gpu), torch.cuda.max_memory_allocated(gpu)
        load = planned.loads.get(gpu)
        plans = f" (planned: {load.weights / 1e9:.2f} and {load.total / 1e9:.2f})" if load else ""
        console.print(f"GPU {gpu}, {when}: holds {held / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB{plans}")


def say_bound(model: Any, passages: Sequence[Passage], seconds: float) -> None:
    """How far the reading is from the time its matrix products alone would take."""
    parameters = sum(parameter.numel() for parameter in model.layers.parameters() if parameter.dim() == 2)
    tokens = sum(len(passage.token_ids) for passage in passages)
    work = 2 * parameters * tokens
    said = f"2 x {parameters / 1e9:.2f}e9 parameters x {tokens} tokens = {work / 1e15:.3f} PFLOP"
    if not torch.cuda.is_available():
        console.print(f"bound: {said}; no GPU, no rate")
        return
    rate = matmul_rate()
    console.print(
        f"bound: {said} at {rate / 1e12:.0f} TFLOP/s measured = {work / rate:.2f} s: "
        f"{work / rate / seconds:.0%} of it reached"
    )
