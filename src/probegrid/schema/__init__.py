"""The contract of every configuration value: one dataclass a group, one docstring a field.

Knows names, types, defaults and what each value may be. Datasets and probes with fields of their own subclass
``DatasetConfig`` or ``ProbeConfig`` in their own module and are found there (``compose.register``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from probegrid.errors import ConfigError
from probegrid.schema.ranges import (
    MOST_GB,
    MOST_GPUS,
    MOST_ROWS,
    MOST_TOKENS,
    check,
    number_field,
    path_field,
    seed_field,
    shown,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Typed = TypeVar("Typed")


class Action(Enum):
    """What the command does; each value says it in a line."""

    run = "Run the cell, or every cell of the grid; what is recorded as done is not computed again."
    plan = "Say what it needs: blocks, bytes on each device, batch, time; no weight is read."
    score = "Score the statements of dataset with the saved probe in probe.from=<folder of a cell>."
    report = "Put recorded cells side by side: tables, paired comparisons, figures, one page."
    sync = "Send to MLflow what is recorded on disk and is not there yet."
    status = "Show the sweeps of results_dir: what is queued, running, done, failed and why."
    cancel = "End the jobs of a sweep that is running; what is done stays."
    verify = "Hold every stored file against its checksum; what is damaged is named and set aside."


class Dtype(Enum):
    """Floating-point type the weights are held and computed in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class QuantizationMethod(Enum):
    """How the linear layers of the blocks are stored."""

    auto = "auto"
    """As the checkpoint is stored: not quantized, or as bitsandbytes, GPTQ, AWQ, FP8, ... left it."""
    none = "none"
    int8 = "int8"
    nf4 = "nf4"

    @property
    def packs(self) -> bool:
        """Whether it quantizes what is not quantized yet."""
        return self in (QuantizationMethod.int8, QuantizationMethod.nf4)


class PlacementStrategy(Enum):
    """How blocks are spread over devices."""

    auto = "auto"
    """GPUs in order, filled one after another, then CPU memory; the CPU alone where there is no GPU."""
    cpu = "cpu"
    """Everything in CPU memory, computed on the CPU."""
    single = "single"
    """Everything on one GPU."""
    balanced = "balanced"
    """An equal share of the bytes on each GPU."""


class StatementRendering(Enum):
    """How a bare statement is read."""

    plain = "plain"
    """BOS, where the tokenizer has one, and its text."""
    assistant = "assistant"
    """As the assistant's turn, after a turn of the user that says nothing of it."""
    user = "user"
    """As the user's turn."""


class OptionScores(Enum):
    """Whether the options of a question are also scored by their log-probabilities."""

    none = "none"
    """They are not."""
    letters = "letters"
    """Their letters, and how much of the probability falls on them."""
    texts = "texts"
    """Their texts, in all and by their length."""


class Family(Enum):
    """Over which comparisons a report corrects its p-values."""

    all = "all"
    """All that the recorded cells give, whichever are shown."""
    shown = "shown"
    """Those of the cells that are shown."""


class TrackingBackend(Enum):
    """Where recorded cells are sent after they are on disk."""

    mlflow = "mlflow"
    none = "none"


@dataclass
class BlockWeights:
    """Weights of one block, or of so many in a row that are alike, in numbers of parameters."""

    count: int = number_field(1, least=1, most=10_000)
    """Blocks."""
    matrices: int = number_field(MISSING, least=0, most=10**13)
    """Of what quantization packs: linear layers and experts."""
    rows: int = number_field(MISSING, least=0, most=10**10)
    """Output features of all matrices together: int8 has a scale for each."""
    tensors: int = number_field(MISSING, least=0, most=10**6)
    """Matrices; all experts of a block are two."""
    largest: int = number_field(MISSING, least=0, most=10**13)
    """Of what is unpacked at once: the largest matrix, or all experts of a block."""
    others: int = number_field(MISSING, least=0, most=10**13)
    """Of norms, biases, routers, convolutions."""
    experts: int = number_field(0, least=0, most=10**13)
    """Of the matrices, those of experts that a router chooses."""


@dataclass
class DecoderWeights:
    """Weights of each part of a decoder, in numbers of parameters."""

    embedding: int = number_field(MISSING, least=0, most=10**13)
    """Of the embedding and what stands beside it."""
    tail: int = number_field(MISSING, least=0, most=10**13)
    """Of the final norm."""
    head: int = number_field(MISSING, least=0, most=10**13)
    """Of the head; 0 where it is the embedding."""
    blocks: list[BlockWeights] = field(default_factory=list)
    """Of the blocks, in order."""


@dataclass
class Architecture:
    """The numbers of a decoder that determine its bytes and operations; checked against the checkpoint at load."""

    layers: int = number_field(MISSING, least=1, most=10_000)
    """Transformer blocks."""
    hidden: int = number_field(MISSING, least=1, most=10**6)
    """Width of the residual stream."""
    heads: int = number_field(MISSING, least=1, most=10**5)
    """Query heads of a block."""
    kv_heads: int = number_field(MISSING, least=1, most=10**5)
    """Key and value heads of a block; smaller than ``heads`` under grouped-query attention."""
    head_dim: int = number_field(MISSING, least=1, most=10**5)
    """Width of one head."""
    intermediate: int = number_field(MISSING, least=1, most=10**7)
    """Width of the feed-forward layer (of one expert)."""
    vocab: int = number_field(MISSING, least=1, most=10**8)
    """Rows of the embedding."""
    experts: int = number_field(1, least=1, most=10**5)
    """Experts of a block; 1 for a dense model."""
    experts_per_token: int = number_field(1, least=1, most=10**5)
    """Experts a token passes through."""
    tied_embeddings: bool = False
    """Whether the output head is the embedding itself."""
    attention_bias: bool = False
    """Whether the query, key and value projections have biases (Qwen2)."""
    output_bias: bool = False
    """Whether the attention's output projection has a bias too (Llama with ``attention_bias``)."""
    mlp_bias: bool = False
    """Whether the feed-forward projections have biases (Llama with ``mlp_bias``)."""
    qk_norm: bool = False
    """Whether queries and keys are normalized head by head (Qwen3, Gemma 3)."""
    post_norms: bool = False
    """Whether attention and feed-forward are normalized after as well as before (Gemma 2 and 3)."""
    context: int = number_field(MISSING, least=1, most=10**9, unit="tokens")
    """Largest number of positions, in tokens."""
    kv_width: int | None = number_field(None, least=0, most=10**7)
    """Numbers that a token leaves in a block for later ones; null: ``2 * kv_heads * head_dim``."""
    weights: DecoderWeights | None = None
    """Parameters of every part, where they are known otherwise than by the numbers above; null: by those."""
    stored: str | None = None
    """How the files that are published hold its blocks' matrices, as ``quantization_config.quant_method`` says it:
    ``fp8``, ``mxfp4``; null: in 16 or 32 bits."""

    def __post_init__(self) -> None:
        if self.stored not in (None, "fp8", "mxfp4"):
            raise ConfigError(
                f"model.architecture.stored={self.stored} is no form whose bytes are known without its files; "
                "give fp8, mxfp4 or null."
            )


@dataclass
class Resources:
    """What a job of this model asks the scheduler for; null: taken from the plan."""

    gpus: int | None = number_field(None, least=0, most=MOST_GPUS)
    """GPUs of one node."""
    cpus: int | None = number_field(None, least=1, most=10_000)
    """CPU cores."""
    mem_gb: float | None = number_field(None, above=0, most=MOST_GB, unit="GB")
    """CPU memory in GB (10^9 bytes)."""
    timeout_min: int | None = number_field(None, least=1, most=366 * 24 * 60, unit="minutes")
    """Wall-clock limit in minutes."""


@dataclass
class ThinkingConfig:
    """What a model's thoughts stand between; null: the marks that are known (``<think>``, channels, ...)."""

    open: str | None = None
    """What a thought begins with."""
    close: str | None = None
    """What it ends with; the answer follows."""

    def __post_init__(self) -> None:
        if bool(self.open) != bool(self.close):
            raise ConfigError("model.thinking.open and model.thinking.close belong together; give both.")
        if self.open is not None and (not self.open.strip() or self.open == self.close):
            raise ConfigError(
                f"model.thinking.open={shown(self.open)} cannot be told from "
                f"{'any text' if not self.open.strip() else 'what closes a thought'}; give two marks, or null."
            )


@dataclass
class ModelConfig:
    """A checkpoint and how it is read."""

    path: str = path_field(MISSING)
    """Hub id (``Qwen/Qwen2.5-72B-Instruct``), local folder, or ``embedded:tiny``."""
    revision: str | None = path_field(None)
    """Branch, tag or commit of the hub repository; ignored for a local folder."""
    dtype: Dtype = Dtype.bfloat16
    """Floating-point type of the weights that are not quantized, and of the computation."""
    trust_remote_code: bool = False
    """Run Python code that comes with the checkpoint."""
    use_safetensors: bool = True
    """Load ``.safetensors`` only; false also allows pickled ``.bin`` weights, which can run code when opened."""
    chat_template: str | None = path_field(None)
    """null: plain text for questions, the tokenizer's own template for conversations where it has one; ``none``: plain
    text always; ``default`` (or true): the tokenizer's own template for both; else the path of a Jinja file. Bare
    statements are plain text unless ``prompt.render`` says otherwise."""
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    """What the template is told besides the messages; ``date_string`` is the date it is told (26 Jul 2024 unless
    given), so that every day asks the same. Where it can switch thinking off (``enable_thinking``, ``thinking``), it
    does unless that is given."""
    thinking: ThinkingConfig = field(default_factory=ThinkingConfig)
    """The marks of the model's thoughts, where they are none of those that are known."""
    architecture: Architecture | None = None
    """Facts for planning with no network; null: read from the checkpoint's own config."""
    resources: Resources = field(default_factory=Resources)
    """What a job asks the scheduler for."""

    def __post_init__(self) -> None:
        check(self, "model")
        if self.chat_template is not None and self.chat_template.lower() in ("true", "auto"):
            self.chat_template = "default"
        if self.chat_template is not None and self.chat_template.lower() in ("false", "none"):
            self.chat_template = "none"


@dataclass
class QuantizationConfig:
    """How linear layers are stored: ``auto`` (as the checkpoint is), ``none`` (``model.dtype``), ``int8``, ``nf4``."""

    method: QuantizationMethod = QuantizationMethod.auto
    """Storage format of the linear layers of the blocks."""
    keep: bool = True
    """Keep the quantized copy of an unquantized checkpoint in the store, where the disk has room, and read it later."""


@dataclass
class DeviceMapConfig:
    """The hardware a cell may use."""

    strategy: PlacementStrategy = PlacementStrategy.auto
    """How blocks are spread."""
    gpus: int | None = number_field(None, least=0, most=MOST_GPUS)
    """GPUs to use; null: those that are visible."""
    gpu: str | None = None
    """Name of the card (``2080 Ti``, ``A100 80GB``, ``h100``), by which cards that are not here are planned with their
    rates, and the type of the computation is chosen: float16 in place of bfloat16 before Ampere. null: what is here."""
    gpu_memory_gb: float | None = number_field(None, above=0, most=MOST_GB, unit="GB")
    """Memory of each GPU in GB (10^9 bytes); null: what the GPU reports as free."""
    cpu_memory_gb: float | None = number_field(None, above=0, most=MOST_GB, unit="GB")
    """CPU memory for weights in GB; null: what the machine reports as available."""
    overhead_gb: float = number_field(1.0, least=0, most=MOST_GB, unit="GB")
    """Memory of each GPU kept free for the CUDA context, the libraries and fragmentation, in GB."""
    replicas: str = "auto"
    """Copies of the model that share the reading, each on GPUs of its own: a number, or ``auto`` for as many as the
    placement leaves GPUs for and the seconds of the reading are worth (on a CPU one). Never changes the cell's key."""

    def __post_init__(self) -> None:
        check(self, "device_map")
        if self.replicas != "auto" and re.fullmatch(r"[1-9][0-9]{0,2}", self.replicas) is None:
            raise ConfigError(
                f"device_map.replicas={shown(self.replicas)} is neither 'auto' nor a number from 1 to 999."
            )


@dataclass
class DatasetConfig:
    """What every dataset takes. ``num_samples`` examples are drawn with ``seed`` from ``split`` of ``path``."""

    holds_questions: ClassVar[bool] = False
    """Whether it loads as questions with references; else as statements with labels."""
    path: str | None = path_field(None)
    """Hub id, local file, or local folder; null for the embedded sets."""
    split: str = path_field("validation")
    """Split that is evaluated."""
    num_samples: int = number_field(400, least=1, most=MOST_ROWS, below="asks for no example")
    """Examples to evaluate; more than there are means all of them."""
    seed: int = seed_field()
    """Seed of the draw of the examples."""

    def __post_init__(self) -> None:
        check(self, "dataset")


@dataclass
class QuestionDatasetConfig(DatasetConfig):
    """A question-answer dataset: few-shot examples come from a split (or a part) that is never evaluated."""

    holds_questions: ClassVar[bool] = True
    """Always."""
    shot_split: str = path_field("train")
    """Split the few-shot examples are drawn from; a single local file is divided into two disjoint parts instead."""
    rule: str | None = None
    """Rule of correctness by which an answer is judged: ``squad``, ``trivia_qa``, ``exact``, ``contains``, ``numeric``,
    ``choice``, ``rouge_l``, ``regex``, ``judge`` or one of your own; null: the dataset's own."""
    judge: str | None = path_field(None)
    """Hub id or local folder of the second model that ``rule=judge`` asks."""
    rule_threshold: float | None = number_field(None, least=0, most=10**6)
    """What an answer must reach to be correct (F1 of ``squad``, p(yes) of ``judge``), exceed (ROUGE-L) or keep within
    (the relative difference of ``numeric``); null: the rule's own."""
    language: str | None = None
    """Language by whose articles and punctuation words are normalized (``de``, ``zh``, ``other``); null: English, as
    the official scorers have it."""


@dataclass
class PromptConfig:
    """How a question becomes the text a model reads."""

    instruction: str = "Answer the following question as briefly as possible.\n"
    """First line of the prompt; a typed backslash and n is a new line."""
    num_few_shot: int = number_field(5, least=0, most=100_000)
    """Worked examples before the question."""
    use_context: bool = False
    """Show the paragraph of each question in a ``Context:`` line, where the dataset has one."""
    brief_always: bool = False
    """Repeat the instruction in every block instead of leading once."""
    template: str | None = None
    """Jinja template of the whole prompt, a file or the text itself, over ``question``, ``context``, ``options``,
    ``history``, ``shots`` (each with these and its ``answer``) and ``instruction``; a typed backslash and n is a new
    line; null: the blocks of Kuhn et al."""
    reasoning: bool = False
    """Ask for the reasoning before the answer, and show that of the examples."""
    turns: bool = False
    """Under a chat template, show the examples as turns, and the instruction as the system's; in plain text no
    difference."""
    system: str | None = None
    """System turn under a chat template; null: with ``turns`` the instruction, else none."""
    prefill: str | None = None
    """What the assistant's turn begins with under a chat template; the answer goes on from it."""
    render: StatementRendering = StatementRendering.plain
    """How bare statements are read: ``plain`` (BOS and text, as the literature does), or by the chat template as the
    turn of the ``assistant`` or of the ``user``."""
    score_options: OptionScores = OptionScores.none
    """Beside the answer, read how likely each option is behind the prompt: ``letters`` or ``texts``."""
    answer_pattern: str | None = None
    """Regular expression whose first group is the answer in what was said, the last match of it; several, a line each,
    are tried in turn. null: what the rule of correctness judges."""
    max_new_tokens: int = number_field(
        50, least=1, most=MOST_TOKENS, below="leaves no room for an answer", unit="tokens"
    )
    """Longest answer this prompt calls for, in tokens; the default of ``decoding.max_new_tokens``."""
    stop: list[str] = field(default_factory=lambda: ["\n", "\n\n", "Question:", "Context:"])
    """Strings that end an answer, besides the end-of-sequence tokens; a typed backslash and n is a new line."""
    seed: int = seed_field()
    """Seed of the draw of the few-shot examples."""

    def __post_init__(self) -> None:
        check(self, "prompt")
        self.stop = [stop.replace("\\n", "\n") for stop in self.stop]  # a shell hands on both characters
        self.instruction = self.instruction.replace("\\n", "\n")
        if any(not stop for stop in self.stop):
            raise ConfigError(
                "prompt.stop holds an empty string, which would end every answer at once; remove it."
            )
        if self.prefill is not None and self.prefill != self.prefill.rstrip():
            raise ConfigError(
                f"prompt.prefill={shown(self.prefill)} ends in white space, which templates strip and tokenizers join "
                "with what comes; end it with a word or a sign."
            )


@dataclass
class DecodingConfig:
    """How answers are generated. The greedy answer is always made; ``num_generations`` samples come beside it."""

    do_sample: bool = False
    """Also draw ``num_generations`` samples for each question."""
    max_new_tokens: int = number_field(
        50, least=1, most=MOST_TOKENS, below="leaves no room for an answer", unit="tokens"
    )
    """Longest answer in tokens."""
    max_thinking_tokens: int = number_field(1024, least=1, most=MOST_TOKENS, unit="tokens")
    """Longest thought before an answer, in tokens, of models that think; one that is longer is no answer."""
    temperature: float = number_field(1.0, above=0, least=1e-4, most=100, hint="greedy is decoding=greedy")
    """Softmax temperature of the samples; log-probabilities are always recorded at temperature 1."""
    num_generations: int = number_field(1, least=1, most=10_000)
    """Samples a question when ``do_sample``; greedy decoding has one generation."""
    batch_size: str = "auto"
    """Questions decoded together: a number, or ``auto`` for what memory allows. Never changes the cell's key."""
    count_stop: bool = False
    """Whether the token that ends an answer counts in its log-probability and length."""
    seed: int = seed_field()
    """Seed of the samples."""

    def __post_init__(self) -> None:
        check(self, "decoding")
        if not self.do_sample and self.num_generations != 1:
            raise ConfigError(
                f"decoding.num_generations={self.num_generations} with greedy decoding would repeat one answer; "
                "use decoding=sample."
            )
        if self.batch_size != "auto" and re.fullmatch(r"[1-9][0-9]{0,6}", self.batch_size) is None:
            raise ConfigError(
                f"decoding.batch_size={shown(self.batch_size)} is neither 'auto' nor a number of at least 1 "
                "(and below ten millions)."
            )


@dataclass
class ProbeConfig:
    """What every probe takes; each probe's own fields are in its module."""

    fewest_samples: ClassVar[int] = 0
    """Samples of each question that it needs, which ``decoding=sample`` draws beside the greedy answer."""
    from_cell: str | None = path_field(None)
    """Folder of a recorded cell whose saved probe ``action=score`` uses; typed as ``probe.from``."""

    def __post_init__(self) -> None:
        check(self, "probe")


@dataclass
class TrackingConfig:
    """Where recorded cells are sent after they are on disk."""

    backend: TrackingBackend = TrackingBackend.mlflow
    """``mlflow`` or ``none``."""
    uri: str = path_field("sqlite:///mlflow.db")
    """MLflow tracking URI: a database or a server."""
    experiment: str = path_field("probegrid")
    """MLflow experiment."""

    def __post_init__(self) -> None:
        check(self, "tracking")


@dataclass
class ReportConfig:
    """What ``action=report`` shows and where it writes; a filter is a name or a list of names, null: all cells."""

    compare: str | None = None
    """Group (``quantization``, ``probe``, ``prompt``) or key (``prompt.num_few_shot``) whose values are compared in
    pairs, all else equal."""
    family: Family = Family.all
    """Over which comparisons Holm's correction goes: ``all`` that the recorded cells give, so that a filter changes no
    p-value, or those ``shown``."""
    sweep: Any = None
    """Ids of sweeps whose cells are shown."""
    model: Any = None
    """Choices of ``model`` that are shown."""
    quantization: Any = None
    """Choices of ``quantization`` that are shown."""
    device_map: Any = None
    """Choices of ``device_map`` that are shown."""
    dataset: Any = None
    """Choices of ``dataset`` that are shown."""
    probe: Any = None
    """Choices of ``probe`` that are shown."""
    folder: str = path_field("report")
    """Folder of tables, figures and page; an earlier report in it is replaced."""
    seed: int = seed_field()
    """Seed of the drawing behind the comparisons' p-values."""
    resamples: int = number_field(2000, least=1, most=10**6, below="leaves nothing to resample")
    """Flippings of signs drawn behind each p-value."""
    price_per_gpu_hour: float | None = number_field(None, least=0, below="is no price")
    """What an hour of one GPU costs, in any currency: what cells cost is then in the report; null: it is not."""

    def __post_init__(self) -> None:
        check(self, "report")


@dataclass
class StatusConfig:
    """How ``action=status`` looks at a sweep."""

    every: float | None = number_field(None, least=0.5, most=86_400, unit="seconds")
    """Seconds after which it looks again, until nothing is on its way; null: it looks once."""

    def __post_init__(self) -> None:
        check(self, "status")


@dataclass
class Config:
    """The root: one cell of the grid, and what to do with it."""

    action: Action = Action.run
    """What the command does."""
    model: ModelConfig = MISSING
    """Group ``model``."""
    quantization: QuantizationConfig = MISSING
    """Group ``quantization``."""
    device_map: DeviceMapConfig = MISSING
    """Group ``device_map``."""
    dataset: DatasetConfig = MISSING
    """Group ``dataset``."""
    probe: ProbeConfig = MISSING
    """Group ``probe``."""
    prompt: PromptConfig = MISSING
    """Group ``prompt``."""
    decoding: DecodingConfig = MISSING
    """Group ``decoding``."""
    tracking: TrackingConfig = MISSING
    """Group ``tracking``."""
    report: ReportConfig = field(default_factory=ReportConfig)
    """What ``action=report`` shows and where it writes."""
    status: StatusConfig = field(default_factory=StatusConfig)
    """How ``action=status`` looks at a sweep."""
    experiment: Any = None
    """Name of the preset that was chosen, if any (group ``experiment``)."""
    seed: int = seed_field()
    """Base of every other seed; each random choice has its own, so that one more choice changes no other."""
    store_dir: str = path_field("store")
    """Folder of the readings, shared by all cells; where it is not given, what ``PROBEGRID_STORE`` names."""
    results_dir: str = path_field("results")
    """Folder of the recorded cells; where it is not given, what ``PROBEGRID_RESULTS`` names."""
    force: bool = False
    """Read and compute again what is done already, and replace it."""
    debug: bool = False
    """Show tracebacks of the user's mistakes too."""

    def __post_init__(self) -> None:
        check(self, "")  # the fields of a plug-in's dataset or probe too, which may check nothing itself
        drawn = self.decoding.num_generations if self.decoding.do_sample else 0
        if drawn < self.probe.fewest_samples:
            name = type(self.probe).__module__.rpartition(".")[2]
            raise ConfigError(
                f"probe={name} needs {self.probe.fewest_samples} or more samples of each question, and {drawn} are "
                "drawn; drop decoding=greedy or use decoding=sample, which draws 10."
            )


@dataclass(frozen=True)
class Choices:
    """The name chosen in each group, as typed: ``model=qwen72b`` gives ``choices.model == "qwen72b"``."""

    model: str
    """Choice of group ``model``."""
    quantization: str
    """Choice of group ``quantization``."""
    device_map: str
    """Choice of group ``device_map``."""
    dataset: str
    """Choice of group ``dataset``."""
    probe: str
    """Choice of group ``probe``."""

    @property
    def name(self) -> str:
        """What the name of the cell's run begins with: ``model-quantization-dataset-probe``."""
        return "-".join((self.model, self.quantization, self.dataset, self.probe))


def to_plain(config: Config) -> dict[str, Any]:
    """What ``config.yaml`` holds of a cell: all but the keys of report and status, which are no part of it."""
    return {name: value for name, value in plain_values(config).items() if name not in ("report", "status")}


def typed(owner: type[Typed], values: Mapping[str, Any]) -> Typed:
    """A dataclass of plain values, checked; nothing in them is resolved.

    Raises:
        ConfigError: a key it lacks, a value of another type, or an interpolation, which could read this machine.
    """
    if "${" in repr(values):
        raise ConfigError("it holds an interpolation, and none is resolved that comes with somebody's files")
    try:
        made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(owner), dict(values)))
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    assert isinstance(made, owner)
    return made


def plain_values(values: DataclassInstance) -> dict[str, Any]:
    """The fields of a dataclass as nested plain values, every enum by its name."""
    return {part.name: _plain(getattr(values, part.name)) for part in fields(values)}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return plain_values(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class CellSpec:
    """What the user composed for one cell: typed, checked, and all that travels to where it runs."""

    config: Config
    """Every value."""
    choices: Choices
    """The names it was composed from."""
    test_on: Mapping[str, DatasetConfig] = field(default_factory=dict)
    """The datasets of ``probe.test_on``, by name."""
    overrides: tuple[str, ...] = ()
    """What was typed besides the choices in its name and tells it apart; in a sweep, from the sweep's other cells."""

    @property
    def name(self) -> str:
        """The name of the cell's run: its choices, and its overrides."""
        return " ".join((self.choices.name, *self.overrides))
