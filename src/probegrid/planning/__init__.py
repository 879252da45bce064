"""What a cell will need, from facts alone: no torch, no weights."""
