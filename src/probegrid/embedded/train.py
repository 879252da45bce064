"""Trains the embedded model: `python -m probegrid.embedded.train [--out DIR]`, under twenty minutes on one core.

One thread is used, so that the same machine writes the same bytes whatever else it is doing. The checkpoint is one
of transformers: bf16 weights, configuration, generation defaults and tokenizer.
"""

import argparse
import math
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from random import Random

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from probegrid.embedded import checkpoint_dir, documents, tokenizer, world

CONTEXT = 16384
STEPS = 1500
ROWS = 16
ROW_TOKENS = 128
LEARNING_RATE = 2e-3
WARMUP_STEPS = 100
FIRST_FACTS = 60  # are all there is for FIRST_STEPS; the others come in by rank, the last at GROWN_STEPS
FIRST_STEPS = 200
GROWN_STEPS = 1000
VERDICT_WEIGHT = 5.0
REPORT_EVERY = 100


def config(vocabulary: PreTrainedTokenizerFast) -> LlamaConfig:
    """A Llama of 3M parameters with tied embeddings, and two key-value heads for six query heads."""
    return LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.06,
        tie_word_embeddings=True,
        bos_token_id=vocabulary.bos_token_id,
        eos_token_id=vocabulary.eos_token_id,
        pad_token_id=vocabulary.pad_token_id,
    )


def reach(step: int) -> int:
    """How many facts, from the most frequent on, the documents of a step are about.

    All of them at once take far longer to learn: how a fact is recalled and how a statement is checked is learnt
    from the first few, met again and again, and then holds for the others.
    """
    grown = min(1.0, max(0.0, (step - FIRST_STEPS) / (GROWN_STEPS - FIRST_STEPS)))
    return round(FIRST_FACTS * math.pow(len(world.facts()) / FIRST_FACTS, grown))


def batches(vocabulary: PreTrainedTokenizerFast, rng: Random) -> Iterator[torch.Tensor]:
    """The token ids of every step, int64 [ROWS, ROW_TOKENS]; a row is whole documents, the last one cut."""
    for step in count():
        yield torch.tensor([_row(vocabulary, rng, reach(step)) for _ in range(ROWS)])


def target_weights(vocabulary: PreTrainedTokenizerFast) -> torch.Tensor:
    """What each token counts for in the loss, float32 [vocabulary]: verdicts more, names of entities not at all.

    Which entity comes next is chance, and most of the loss without this.
    """
    weights = torch.ones(len(vocabulary))
    names = [f" {fact.entity}" for fact in world.facts()]
    for words, weight in ((names, 0.0), ([" true", " false"], VERDICT_WEIGHT)):
        for token in vocabulary(words, add_special_tokens=False)["input_ids"]:
            weights[token] = weight
    return weights


def fit(model: LlamaForCausalLM, data: Iterator[torch.Tensor], weights: torch.Tensor) -> None:
    """Train `model` in place on the next STEPS batches, in bf16 autocast; `weights` are those of the targets."""
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _learning_rate_share)
    for step, tokens in enumerate(islice(data, STEPS), start=1):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=tokens).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % REPORT_EVERY == 0:
            print(f"step {step:5d}  facts {reach(step):5d}  loss {loss.item():.3f}", flush=True)


def train(out: Path) -> None:
    """Train the model from scratch and write the checkpoint to the folder `out`."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    vocabulary = tokenizer.build(CONTEXT)
    model = LlamaForCausalLM(config(vocabulary))
    model.set_attn_implementation("eager")  # faster than the fused kernel on rows this short
    fit(model, batches(vocabulary, Random(0)), target_weights(vocabulary))
    model.bfloat16().save_pretrained(out)
    tokenizer.save(vocabulary, out)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train the embedded model.")
    parser.add_argument("--out", type=Path, default=checkpoint_dir(), help="folder of the checkpoint")
    train(parser.parse_args().out)


def _row(vocabulary: PreTrainedTokenizerFast, rng: Random, known: int) -> list[int]:
    row: list[int] = []
    while len(row) < ROW_TOKENS:
        row += vocabulary.encode(documents.document(rng, known), add_special_tokens=False)
    return row[:ROW_TOKENS]


def _learning_rate_share(step: int) -> float:
    """The share of LEARNING_RATE that a step, counted from 0, is taken with: a warmup, then a cosine to 5%."""
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    return warmup * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / STEPS)))


if __name__ == "__main__":
    main()
