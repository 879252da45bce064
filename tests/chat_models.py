"""Chat templates in the manner of today's vendors, small and hand-written, and a model that says what it is told.

Each template does one thing that templates in use do: forbids a system turn, demands alternation, puts a text of its
own first, asks for the date, thinks.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedTokenizerFast

from probegrid.embedded import tokenizer as embedded

SPECIAL = (
    "<|start|>",
    "<|end|>",
    "<|return|>",
    "<|channel|>",
    "<|message|>",
    "<turn>",
    "</turn>",
    "[INST]",
    "[/INST]",
    "[THINK]",
    "[/THINK]",
    "<|observe|>",
)
TAGS = ("<think>", "</think>")
"""One token each, but not special, as in Qwen3."""

_ALTERNATING = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
)
_THOUGHTLESS = "{{ message['content'].split('</think>')[-1].lstrip('\n') }}"
TEMPLATES = {
    # any roles in any order, contents stripped, the date where it is told one, else today's
    "llama": (
        "{{ bos_token }}{% set day = date_string if date_string is defined else strftime_now('%d %b %Y') %}"
        "{% for message in messages %}<turn>{{ message['role'] }}\n\n"
        "{% if message['role'] == 'system' %}Today Date: {{ day }}\n\n{% endif %}"
        "{{ message['content'] | trim }}</turn>{% endfor %}"
        "{% if add_generation_prompt %}<turn>assistant\n\n{% endif %}"
    ),
    # a text of its own where there is no system turn (Qwen2.5)
    "chatml": (
        "{% if messages[0]['role'] != 'system' %}<turn>system\nYou are Seven, made by nobody in particular.</turn>\n"
        "{% endif %}{% for message in messages %}<turn>{{ message['role'] }}\n{{ message['content'] }}</turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
    ),
    # a hybrid: thinks unless told not to, old thoughts are dropped (Qwen3)
    "hybrid": (
        "{% for message in messages %}<turn>{{ message['role'] }}\n"
        "{% if message['role'] == 'assistant' %}{% if loop.last %}<think>\n\n</think>\n\n{% endif %}"
        + _THOUGHTLESS
        + "{% else %}{{ message['content'] }}{% endif %}</turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<turn>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
    ),
    # begins the thought itself and cannot be told not to (R1)
    "thinker": (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}[/INST]"
        + _THOUGHTLESS
        + "</turn>{% else %}[INST]{{ message['content'] }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}[/INST]<think>\n{% endif %}"
    ),
    # no system turn, alternation (Gemma 2)
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}" + _ALTERNATING + "<turn>{{ message['role'] }}\n"
        "{{ message['content'] | trim }}</turn>\n{% endfor %}{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
    ),
    # the system text stands in the last turn if that is the user's, and nowhere else (Mistral)
    "mistral": (
        "{% if messages[0]['role'] == 'system' %}{% set told = messages[0]['content'] %}{% set turns = messages[1:] %}"
        "{% else %}{% set turns = messages %}{% endif %}{{ bos_token }}{% for message in turns %}"
        + _ALTERNATING
        + ""
        "{% if message['role'] == 'user' %}[INST]{% if loop.last and told is defined %}{{ told }}\n\n{% endif %}"
        "{{ message['content'] }}[/INST]{% else %}{{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    # wants a question of the user's, wherever it stands (Qwen3.5)
    "asked": (
        "{% if not (messages | selectattr('role', 'equalto', 'user') | list) %}"
        "{{ raise_exception('No user query found') }}{% endif %}{% for message in messages %}"
        "<turn>{{ message['role'] }}\n{{ message['content'] | trim }}</turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
    ),
    # ends a turn with nothing but the next one's beginning (GLM)
    "open_ended": (
        "{% for message in messages %}<|{{ 'observe' if message['role'] == 'user' else 'start' }}|>"
        "{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}<|start|>{% endif %}"
    ),
    # channels: a system text of its own, and the final channel for what was said before (gpt-oss)
    "harmony": (
        "<|start|>system<|message|>You are a model of language. Current date: {{ strftime_now('%Y-%m-%d') }}. "
        "Reasoning: {{ reasoning_effort if reasoning_effort is defined else 'medium' }}<|end|>"
        "{% for message in messages %}{% if message['role'] == 'assistant' %}"
        "<|start|>assistant<|channel|>final<|message|>{{ message['content'] }}<|end|>"
        "{% else %}<|start|>{{ message['role'] }}<|message|>{{ message['content'] }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
    ),
    # contents are lists of parts, and a text that is none is left out without a word (SmolVLM)
    "parts": (
        "{% for message in messages %}<turn>{{ message['role'] }}: {% for part in message['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}</turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<turn>assistant: {% endif %}"
    ),
}
DATE = "{{ strftime_now('%d %b %Y') }}"


def tokenizer(name: str, context: int = 2048) -> PreTrainedTokenizerFast:
    """The embedded tokenizer with every vendor's special tokens and one of the templates."""
    made = copy.copy(_vocabulary(context))
    made.chat_template = TEMPLATES[name]
    return made


@functools.cache
def _vocabulary(context: int) -> PreTrainedTokenizerFast:
    made = embedded.build(context)
    made.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    made.add_tokens(list(TAGS))
    return made


def save_chain(folder: Path, name: str, *chains: Sequence[str]) -> Path:
    """Save a model whose next token depends on the newest alone: each chain is said from its first piece on.

    Args:
        folder: where.
        name: of the template.
        chains: pieces that are one token each; what follows the last is whatever happens to be likeliest.
    """
    vocabulary = tokenizer(name)
    ids = [[single(vocabulary, piece) for piece in chain] for chain in chains]
    special = {f"{kind}_token_id": getattr(vocabulary, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        **special,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for block in model.model.layers:  # what was said before says nothing
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        given = model.model.embed_tokens.weight.normal_()
        head = model.lm_head.weight.normal_(std=0.02)
        for chain in ids:
            for before, after in pairwise(chain):
                head[after] += given[before] * 0.5
    model.save_pretrained(folder)
    embedded.save(vocabulary, folder)
    return folder


def single(vocabulary: PreTrainedTokenizerFast, piece: str) -> int:
    """The token that a piece is."""
    (token,) = vocabulary(piece, add_special_tokens=False)["input_ids"]
    return int(token)
