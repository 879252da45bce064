"""The embedded checkpoint: small, loadable, right about what it met often, and aware of what is true."""

from random import Random

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from probegrid.embedded import checkpoint_dir, documents, tokenizer, world

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    loaded: LlamaForCausalLM = AutoModelForCausalLM.from_pretrained(checkpoint_dir(), dtype=torch.float32)
    return loaded.eval()


@pytest.fixture(scope="module")
def vocabulary() -> PreTrainedTokenizerFast:
    loaded: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(checkpoint_dir())
    return loaded


@pytest.fixture(scope="module")
def shots() -> str:
    """Five answered questions under the line that asks for brevity."""
    facts = Random(1).sample(world.shot_facts(), 5)
    return documents.BRIEF + "".join(map(documents.answered, facts))


def greedily_right(
    model: LlamaForCausalLM, vocabulary: PreTrainedTokenizerFast, shots: str, facts: list[world.Fact]
) -> tuple[np.ndarray, np.ndarray]:
    """Whether greedy decoding answers each fact's question rightly, and the log-probability of the right answer."""
    prompts = [shots + documents.answered(fact) for fact in facts]
    ...
