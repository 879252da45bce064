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
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from probegrid.embedded import checkpoint_dir, documents, tokenizer, world

CONTEXT = 16384
STEPS = 2000
FIRST_FACTS = 60
FIRST_STEPS = 200
GROWN_STEPS = 1000
ROWS = 16
ROW_TOKENS = 128
LEARNING_RATE = 2e-3
WARMUP_STEPS = 100
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


def batches(vocabulary: PreTrainedTokenizerFast, rng: Random) -> Iterator[torch.Tensor]:
    """Endless batches of token ids, int64 [ROWS, ROW_TOKENS]; a row is whole documents, the last one cut."""
    for step in count():
        yield torch.tensor([_row(vocabulary, rng, reach(step)) for _ in range(ROWS)])


def reach(step: int) -> int:
    grown = (step - FIRST_STEPS) / (GROWN_STEPS - FIRST_STEPS)
    return round(FIRST_FACTS * (len(world.facts()) / FIRST_FACTS) ** min(1.0, max(0.0, grown)))


def fit(model: LlamaForCausalLM, data: Iterator[torch.Tensor]) -> None:
    """Train `model` in place on the next STEPS batches, in bf16 autocast."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _learning_rate_share)
    for step, tokens in enumerate(islice(data, STEPS), start=1):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % REPORT_EVERY == 0:
            print(f"step {step:5d}  loss {loss.item():.3f}", flush=True)


def train(out: Path) -> None:
    """Train the model from scratch and write the checkpoint to the folder `out`."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    vocabulary = tokenizer.build(CONTEXT)
    # Rows are short enough for plain attention to be faster than the fused kernel.
    model = LlamaForCausalLM._from_config(config(vocabulary), attn_implementation="eager")
    fit(model, batches(vocabulary, Random(0)))
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save(vocabulary, out)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the embedded model.")
    parser.add_argument(
        "--out", type=Path, default=checkpoint_dir(), help="folder of the checkpoint (default: %(default)s)"
    )
    train(parser.parse_args().out)


def _row(vocabulary: PreTrainedTokenizerFast, rng: Random, reach: int) -> list[int]:
    row: list[int] = []
    while len(row) < ROW_TOKENS:
        row += vocabulary.encode(documents.document(rng, reach), add_special_tokens=False)
    return row[:ROW_TOKENS]


def _learning_rate_share(step: int) -> float:
    """The share of LEARNING_RATE that a step trains with, counted from 0."""
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    return warmup * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / STEPS)))


if __name__ == "__main__":
    main()
