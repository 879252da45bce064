"""A small random entailment model on disk, and the same evaluated pair by pair by stock code."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from probegrid.embedded import tokenizer

LONGEST = 64
LABELS = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.4,
    "type_vocab_size": 2,
}
FAMILIES = {
    "deberta": (
        "DebertaV2Config",
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
    ),
    "roberta": ("RobertaConfig", {"max_position_embeddings": LONGEST + 2}),
}


def save_classifier(folder: Path, family: str = "deberta", labels: dict[int, str] | None = None) -> Path:
    """Save a classifier that calls about half of all pairs of unlike texts entailed."""
    config_class, changes = FAMILIES[family]
    vocabulary = tokenizer.build(LONGEST)
    special = {f"{name}_token_id": getattr(vocabulary, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    names = labels or LABELS
    numbers = {"id2label": names, "label2id": {name: number for number, name in names.items()}}
    config = getattr(transformers, config_class)(
        vocab_size=len(vocabulary), **SHAPE | special | numbers | changes
    )
    torch.manual_seed(3)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    if len(names) == len(LABELS):
        _balance(model, vocabulary)
    model.save_pretrained(folder)
    tokenizer.save(vocabulary, folder)
    return folder


def _balance(model: transformers.PreTrainedModel, vocabulary: transformers.PreTrainedTokenizerBase) -> None:
    """Shift the bias of the class 2 so that it is the likeliest for half of some pairs."""
    words = [
        "Who plays the tuba?",
        "oboe",
        "a pale-green oboe",
        "Rome is in Italy.",
        "",
        "Bees make honey",
        "1 2 3",
    ]
    margins = []
    for first, second in itertools.permutations(words, 2):
        with torch.inference_mode():
            logits = model(**vocabulary(first, second, return_tensors="pt")).logits[0]
        margins.append(logits[2] - logits[:2].max())
    output = getattr(model.classifier, "out_proj", model.classifier)
    with torch.no_grad():
        output.bias[2] -= torch.stack(margins).quantile(0.5)  # between two pairs: neither stands on the edge


def entailed_one_by_one(folder: Path, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Stock code, a pair at a time, no padding."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    vocabulary = transformers.AutoTokenizer.from_pretrained(folder)
    found = []
    for first, second in pairs:
        encoded = vocabulary([first], [second], return_tensors="pt", truncation=True, max_length=LONGEST)
        with torch.inference_mode():
            found.append(LABELS[int(model(**encoded).logits.argmax())] == "ENTAILMENT")
    return found


def with_sentencepiece_tokenizer(folder: Path, texts: Sequence[str]) -> Path:
    """Give a classifier the only tokenizer file that Microsoft's DeBERTa-v2 has, ``spm.model``."""
    import sentencepiece

    for file in folder.glob("tokenizer*"):
        file.unlink()
    special = {"bos_piece": "[CLS]", "eos_piece": "[SEP]", "pad_piece": "[PAD]", "unk_piece": "[UNK]"}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(folder / "spm"),
        vocab_size=400,
        **{"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3} | special,
        user_defined_symbols=["[MASK]"],
        minloglevel=2,
    )
    settings = {"do_lower_case": False, "vocab_type": "spm", "model_max_length": LONGEST}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
