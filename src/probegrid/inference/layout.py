"""Which row and slot each token of a pass belongs to: of prompts that are read, and of rows that grow by a token.

Knows tensors. Notation as in ``attention.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probegrid.models.border import to_device


@dataclass(frozen=True)
class Layout:
    """Which row and slot each packed token belongs to. Tokens of a row are adjacent and in order.

    Rows are those from ``first_row`` on; every one of them has at least one token.
    """

    row: Tensor
    """[N] int64: row of each token, counted from ``first_row``."""
    slot: Tensor
    """[N] int64: position of each token among its row's own tokens: it attends to those up to its own."""
    row_starts: Tensor
    """[rows + 1] int32: where each row's tokens begin in the packed sequence."""
    lengths: Tensor
    """[rows] int32: slots in use of each row, the tokens of this layout included."""
    row_first: Tensor
    """[N] int32: for each token the packed sequence's first token of its row."""
    first_row: int
    n_rows: int
    max_new: int
    """Most tokens any row has in this layout."""
    max_length: int
    """Largest of ``lengths``."""
    _moved: dict[torch.device, Layout] = field(default_factory=dict, compare=False, repr=False)
    _places: dict[int, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, new_tokens: Sequence[int], used: Sequence[int], first_row: int = 0) -> Layout:
        """Lay out ``new_tokens[i]`` tokens for row ``first_row + i``, which has ``used[i]`` slots in use already."""
        # by numpy: torch divides a millisecond's work among threads that have to be woken up, and takes five
        new, old = np.asarray(new_tokens), np.asarray(used)
        starts = np.concatenate([[0], new.cumsum()])
        row = np.arange(len(new)).repeat(new)
        first = starts[row]
        lengths = old + new
        return cls(
            row=torch.from_numpy(row),
            slot=torch.from_numpy(np.arange(starts[-1]) - first + old[row]),
            row_starts=torch.from_numpy(starts.astype(np.int32)),
            lengths=torch.from_numpy(lengths.astype(np.int32)),
            row_first=torch.from_numpy(first.astype(np.int32)),
            first_row=first_row,
            n_rows=len(new_tokens),
            max_new=max(new_tokens),
            max_length=int(lengths.max()),
        )

    def to(self, device: torch.device) -> Layout:
        """This layout with its tensors on ``device``; copied once however many layers ask."""
        if device == self.row.device:
            return self
        if device not in self._moved:
            names = ("row", "slot", "row_starts", "lengths", "row_first")
            moved: dict[str, Any] = {name: to_device(getattr(self, name), device) for name in names}
            self._moved[device] = replace(self, **moved, _moved={}, _places={})
        return self._moved[device]

    def places(self, slots: int) -> Tensor:
        """[N] int64: where each token is kept in a cache of rows with so many slots, one behind the other."""
        if slots not in self._places:
            self._places[slots] = (self.row + self.first_row) * slots + self.slot
        return self._places[slots]


class Growth:
    """Rows that grow by a token a step: what a step of decoding attends to. Rows of one question are adjacent.

    A *run* is some adjacent rows of one question. The tensors keep their places, so that a CUDA graph may read them.

    Attributes:
        n_rows: R.
        longest_run: most rows of a run.
        longest_question: most tokens of a question.
        in_order: whether the runs are all the rows of the questions' cache, in their order.
        grown: tokens that every row has grown by, those of the next step not counted.
    """

    def __init__(
        self, questions: Sequence[int], lengths: Sequence[int], slots: int, grown: int, longest_run: int
    ) -> None:
        """Lay out the steps to come.

        Args:
            questions: of each row the row of the questions' cache.
            lengths: tokens of every row of the questions' cache.
            slots: of a row of the questions' cache.
            grown: tokens that every row has already grown by.
            longest_run: rows that a run may have; more rows of a question are several runs.
        """
        each = torch.tensor(questions)
        run_of, counts = _runs(each, longest_run)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        question = each[starts[:-1]]
        tokens = torch.tensor(lengths)[question]
        self.n_rows, self.grown = len(each), grown
        self.longest_run, self.longest_question = int(counts.max()), int(tokens.max())
        self.in_order = question.tolist() == list(range(len(lengths)))
        self._tensors = {
            torch.device("cpu"): GrowthTensors(
                row=torch.arange(len(each)),
                row_starts=torch.arange(len(each) + 1, dtype=torch.int32),
                run=run_of,
                run_starts=starts.int(),
                question=question,
                question_starts=torch.cat([question * slots, torch.zeros(1, dtype=torch.int64)]).int(),
                question_lengths=tokens.int(),
                slot=torch.tensor([grown]),
                own_lengths=torch.full((len(each),), grown + 1, dtype=torch.int32),
            )
        }

    @property
    def n_runs(self) -> int:
        """Runs of rows."""
        return len(self.on(torch.device("cpu")).question)

    def on(self, device: torch.device) -> GrowthTensors:
        """The tensors on a device; copied there once, and told of every ``advance``."""
        if device not in self._tensors:
            self._tensors[device] = self._tensors[torch.device("cpu")].to(device)
        return self._tensors[device]

    @torch.inference_mode()
    def advance(self) -> None:
        """Go on to the next token on every device where the tensors are."""
        self.grown += 1
        for tensors in self._tensors.values():
            tensors.slot.add_(1)
            tensors.own_lengths.add_(1)

    @torch.inference_mode()
    def become(self, other: Growth) -> None:
        """Take the values of another layout of as many rows and runs, in the tensors that are there already."""
        self.grown = other.grown
        for device, tensors in self._tensors.items():
            tensors.copy_(other.on(device))


@dataclass(frozen=True, eq=False)
class GrowthTensors:
    """The tensors of a ``Growth`` on one device."""

    row: Tensor
    """[R] int64: 0 to R - 1."""
    row_starts: Tensor
    """[R + 1] int32: 0 to R."""
    run: Tensor
    """[R] int64: the run of each row."""
    run_starts: Tensor
    """[runs + 1] int32: the first row of each run."""
    question: Tensor
    """[runs] int64: the row of the questions' cache that a run reads."""
    question_starts: Tensor
    """[runs + 1] int32: where it begins in that cache, its rows one behind the other."""
    question_lengths: Tensor
    """[runs] int32: tokens of it."""
    slot: Tensor
    """[1] int64: where every row's new token goes among its own."""
    own_lengths: Tensor
    """[R] int32: a row's own tokens, the new one included."""

    def to(self, device: torch.device) -> GrowthTensors:
        """Copies on another device."""
        return GrowthTensors(**{name: to_device(tensor, device) for name, tensor in self._named().items()})

    def copy_(self, other: GrowthTensors) -> None:
        """Take the values of tensors of the same shapes."""
        for name, tensor in self._named().items():
            tensor.copy_(getattr(other, name))

    def _named(self) -> dict[str, Tensor]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


def _runs(questions: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """The run of each row, and the rows of each run: adjacent rows of one question, no more than ``longest``."""
    counts = torch.unique_consecutive(questions, return_counts=True)[1]
    within = torch.cat([torch.arange(count) for count in counts.tolist()])
    run_of = (within % longest == 0).cumsum(0) - 1
    return run_of, torch.bincount(run_of)
