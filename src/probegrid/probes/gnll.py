"""G-NLL: the negative log-likelihood of the greedy answer (Aichberger et al. 2024, arXiv 2412.15176, eq. 11)."""

from __future__ import annotations

from dataclasses import dataclass

from probegrid.probes.base import AnswerProbe, Scores, Scoring
from probegrid.judges.likelihood import mean_logprob, perplexity, sum_logprob


@dataclass
class GNLL(AnswerProbe):
    """Scores an answer by its log-likelihood, minus its G-NLL: in nats, at most 0, not divided by its length."""

    def score(self, scoring: Scoring) -> Scores:
        """Sum the log-probabilities of each greedy answer's tokens; one without tokens by its stop's own.

        Beside it, each negated so that larger means correct is more likely: the mean negative log-likelihood a token
        (nats), the perplexity, the number of tokens, and the entropy of the first token's distribution (nats).
        """
        greedy = scoring.reading.greedy
        return Scores(
            [sum_logprob(answer) for answer in greedy],
            {
                "mean_nll": [mean_logprob(answer) for answer in greedy],
                "perplexity": [-perplexity(answer) for answer in greedy],
                "n_tokens": [-float(len(answer.token_ids)) for answer in greedy],
                "first_token_entropy": [-answer.first_entropy for answer in greedy],
            },
        )
