"""Saved probes: what the files hold, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load

from probegrid.errors import StoreError
from probegrid.probes.fitting.features import Features
from probegrid.probes.logistic import Logistic
from probegrid.probes.saved import DESCRIPTION_FILE, TENSORS_FILE, SavedProbe


@pytest.fixture
def files(make_features: Callable[..., Features]) -> dict[str, bytes]:
    fitted = Logistic().fit(make_features(separation=2.0))
    metrics = {"auroc": 0.9, "within_conversation_auroc": math.nan}
    return SavedProbe("Logistic", fitted, 3, 0.25, "statement_end", {"path": "tiny"}, metrics).to_files()


def test_files_hold_a_row_a_layer(files: dict[str, bytes]) -> None:
    assert set(files) == {"probe.safetensors", "probe.json"}
    tensors = load(files[TENSORS_FILE])
    assert tensors["weights"].shape == (3, 12)
    torch.testing.assert_close(tensors["weights"].norm(dim=1), torch.ones(3))
    assert tensors["bias"].shape == tensors["scale"].shape == (3,)
    description = json.loads(files[DESCRIPTION_FILE], parse_constant=pytest.fail)
    assert description["layers"] == [0, 3, 5]
    assert (description["layer"], description["threshold"]) == (3, 0.25)
    assert description["metrics"] == {"auroc": 0.9, "within_conversation_auroc": None}
    assert math.isnan(SavedProbe.from_files(files).metrics["within_conversation_auroc"])


@pytest.mark.parametrize("name", [TENSORS_FILE, DESCRIPTION_FILE])
def test_damaged_or_missing_files_are_refused(files: dict[str, bytes], name: str) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        SavedProbe.from_files({**files, name: files[name][:40]})
    with pytest.raises(StoreError, match=name):
        SavedProbe.from_files({other: content for other, content in files.items() if other != name})


def test_a_newer_format_is_refused(files: dict[str, bytes]) -> None:
    description = json.loads(files[DESCRIPTION_FILE]) | {"format": 2}
    with pytest.raises(StoreError, match="has format 2, this probegrid reads 1"):
        SavedProbe.from_files({**files, DESCRIPTION_FILE: json.dumps(description).encode()})
