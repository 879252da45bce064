"""A tiny model and the invented world it was taught: probegrid's default cell needs no network and no GPU."""

from pathlib import Path


def checkpoint_dir() -> Path:
    """The folder of the embedded checkpoint: a transformers model (bf16 safetensors) and its tokenizer."""
    return Path(__file__).parent / "tiny"
