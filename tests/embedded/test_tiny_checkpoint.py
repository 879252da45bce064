"""The embedded checkpoint: small, loadable, right about what it met often, and aware of what is true."""

import json
from collections.abc import Iterator
from random import Random

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from probegrid.embedded import checkpoint_dir, documents, tokenizer, world

READ_LAYER = 5


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """A model this small gains nothing from more threads, and loses much where other processes have the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    loaded = AutoModelForCausalLM.from_pretrained(checkpoint_dir(), dtype=torch.float32)
    assert isinstance(loaded, LlamaForCausalLM)
    return loaded


@pytest.fixture(scope="module")
def vocabulary() -> PreTrainedTokenizerFast:
    loaded = AutoTokenizer.from_pretrained(checkpoint_dir())
    assert isinstance(loaded, PreTrainedTokenizerFast)
    return loaded


@torch.inference_mode()
def read_answers(
    model: LlamaForCausalLM, vocabulary: PreTrainedTokenizerFast, facts: list[world.Fact]
) -> tuple[list[bool], list[float]]:
    """Whether greedy decoding gives each fact's answer and a newline after five shots, and how sure it is.

    The right answer stands in the prompt while its tokens are read: greedy decoding gives it if each of its tokens
    is the likeliest. How sure: the log-probability of the likeliest first token.
    """
    shots = documents.BRIEF + "".join(map(documents.answered, Random(1).sample(world.shot_facts(), 5)))
    right, log_probs = [], []
    for fact in facts:
        due = len(vocabulary.encode(shots + documents.asked(fact)))
        tokens = torch.tensor(vocabulary.encode(f"{shots}{documents.asked(fact)} {fact.answer}\n"))
        predicted = model(tokens[None]).logits[0, due - 1 : -1].log_softmax(-1)
        right.append(bool((predicted.argmax(-1) == tokens[due:]).all()))
        log_probs.append(float(predicted[0].max()))
    return right, log_probs


@torch.inference_mode()
def read_statement_ends(
    model: LlamaForCausalLM, vocabulary: PreTrainedTokenizerFast, statements: tuple[world.Statement, ...]
) -> np.ndarray:
    """The residual stream at the end of every statement of one list, float32 [statements, layers + 1, hidden]."""
    record = world.conversation("", statements)
    text = record["messages"][1]["content"]
    encoding = vocabulary(text, return_offsets_mapping=True)
    ends = [end for _, end in encoding["offset_mapping"]]
    last_tokens = [ends.index(label["char_end"]) for label in record["labels"]["statement_level"]]
    states = model.model(torch.tensor([encoding["input_ids"]]), output_hidden_states=True).hidden_states
    return torch.stack(states, dim=1)[0][:, last_tokens].transpose(0, 1).numpy()


def test_is_small_and_reads_long_prompts(model: LlamaForCausalLM) -> None:
    assert sum(parameter.numel() for parameter in model.parameters()) <= 4_000_000
    assert (checkpoint_dir() / "model.safetensors").stat().st_size <= 8_000_000
    config = json.loads((checkpoint_dir() / "config.json").read_text())
    assert config["max_position_embeddings"] >= 16384
    assert 1 < config["num_key_value_heads"] < config["num_attention_heads"]
    tokens = torch.arange(2500)[None] % model.config.vocab_size
    with torch.inference_mode():
        assert model(tokens, logits_to_keep=1).logits.isfinite().all()


def test_its_tokenizer_is_the_one_the_code_builds(vocabulary: PreTrainedTokenizerFast) -> None:
    built = tokenizer.build(context=16384)
    assert vocabulary.get_vocab() == built.get_vocab()
    assert vocabulary.chat_template == built.chat_template
    assert vocabulary.encode("The lyre, né\n") == built.encode("The lyre, né\n")
    assert vocabulary.model_max_length == 16384


@pytest.mark.slow
def test_knows_what_it_met_often_and_is_surer_where_it_is_right(
    model: LlamaForCausalLM, vocabulary: PreTrainedTokenizerFast
) -> None:
    by_rank = sorted(world.question_facts(), key=lambda fact: fact.rank)
    frequent, rare = by_rank[:1000:25], by_rank[-1000::25]
    right, log_probs = read_answers(model, vocabulary, frequent + rare)
    assert np.mean(right[:40]) > 0.8
    assert np.mean(right[40:]) < 0.5
    assert roc_auc_score(right, log_probs) > 0.7


@pytest.mark.slow
def test_the_end_of_a_statement_carries_its_truth(
    model: LlamaForCausalLM, vocabulary: PreTrainedTokenizerFast
) -> None:
    statements = world.statements(0)[:600]
    states = np.concatenate(
        [read_statement_ends(model, vocabulary, statements[i : i + 6]) for i in range(0, 600, 6)]
    )
    truths = np.array([statement.is_true for statement in statements])

    def auroc(layer: int) -> float:
        """Of the difference of the classes' means over the first half, on the second half."""
        train, test = states[:300, layer], states[300:, layer]
        direction = train[truths[:300]].mean(0) - train[~truths[:300]].mean(0)
        return float(roc_auc_score(truths[300:], test @ direction))

    assert auroc(READ_LAYER) > 0.85
    assert auroc(0) == pytest.approx(0.5)
