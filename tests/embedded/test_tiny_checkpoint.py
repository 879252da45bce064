"""The embedded checkpoint: small, loadable, right about what it met often, and aware of what is true."""

from random import Random

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from probegrid.embedded import checkpoint_dir, documents, tokenizer, world

BATCH = 60


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    loaded: LlamaForCausalLM = AutoModelForCausalLM.from_pretrained(checkpoint_dir(), dtype=torch.float32)
    return loaded.eval()


@pytest.fixture(scope="module")
def vocabulary() -> PreTrainedTokenizerFast:
    loaded: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(checkpoint_dir())
    return loaded


@torch.inference_mode()
def answers_read(
    model: LlamaForCausalLM, vocabulary: PreTrainedTokenizerFast, facts: list[world.Fact]
) -> tuple[list[bool], list[float]]:
    """Whether greedy decoding gives each fact's answer and a newline after five shots, and the greedy log-probability.

    The greedy tokens are read with the right answer in place: they are what decoding gives up to its first wrong token.
    """
    shots = documents.BRIEF + "".join(map(documents.answered, Random(1).sample(world.shot_facts(), 5)))
    right, log_probs = [], []
    for fact in facts:
        tokens = vocabulary(shots + documents.answered(fact), return_tensors="pt").input_ids
        answer = slice(vocabulary(shots + documents.asked(fact), return_tensors="pt").input_ids.shape[1], -1)
        predicted = model(tokens).logits[0].log_softmax(-1)[answer.start - 1 : -2]
        right.append(bool((predicted.argmax(-1) == tokens[0, answer]).all()))
        log_probs.append(float(predicted[0].max()))
    return right, log_probs
