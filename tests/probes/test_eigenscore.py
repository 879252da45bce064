"""EigenScore against the determinant, and a cell of it against the hidden states of a plain forward pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import probegrid
from probegrid.compose import compose_cell
from probegrid.errors import ConfigError
from probegrid.judges.states import mean_log_eigenvalue


def test_against_the_determinant() -> None:
    """1/m log det(Sigma + alpha I)."""
    states = torch.randn(7, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centred = states.numpy() - states.numpy().mean(axis=1, keepdims=True)
    _, logdet = np.linalg.slogdet(centred @ centred.T + 0.01 * np.eye(7))
    assert mean_log_eigenvalue(states.numpy(), 0.01) == pytest.approx(logdet / 7)


def test_a_cell_reads_the_middle_layer_at_the_last_token_of_each_sample(
    checkpoint: Callable[[str], Path], workdir: Path
) -> None:
    folder = checkpoint("llama")
    result = probegrid.run(
        [
            *("model=custom", f"model.path={folder}", "model.dtype=float32", "probe=eigenscore"),
            *(
                "dataset.num_samples=5",
                "decoding.num_generations=3",
                "decoding.max_new_tokens=5",
                "tracking=none",
            ),
        ]
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    middle = (model.config.num_hidden_layers + 1) // 2
    answers, samples = result.tables["answers"], result.tables["samples"]
    scores = result.tables["scores"].set_index("example_id").score
    for row in answers.itertuples():
        prompt = tokenizer(row.prompt).input_ids
        states = []
        for sample in samples[samples.example_id == row.example_id].sort_values("sample").itertuples():
            with torch.inference_mode():
                found = model(torch.tensor([[*prompt, *sample.token_ids]]), output_hidden_states=True)
            states.append(found.hidden_states[middle][0, -1])
        stored = torch.stack(states).bfloat16()  # as the store keeps them
        assert scores[row.example_id] == pytest.approx(
            -mean_log_eigenvalue(stored.double().numpy(), 1e-3), abs=0.02
        )


@pytest.mark.parametrize("alpha", ["0", "-1", "nan", "inf"])
def test_an_impossible_alpha_is_refused(alpha: str) -> None:
    with pytest.raises(ConfigError, match=r"probe\.alpha="):
        compose_cell(["probe=eigenscore", f"probe.alpha={alpha}"])
