"""The engine: token ids in, answers, log-probabilities and residual streams out."""
