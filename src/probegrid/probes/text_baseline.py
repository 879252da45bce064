"""Text baseline: what the words of the statements alone give away, with no model read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probegrid.errors import ConfigError
from probegrid.probes.base import TrainedProbe

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from probegrid.evaluation.checks import BoolArray, FloatArray
    from probegrid.evaluation.splits import StrArray


@dataclass
class TextBaseline(TrainedProbe):
    """Logistic regression on TF-IDF weights of word n-grams.

    There is nothing to choose, so that the validation split is trained on too, and the threshold is a score of 0, an
    even chance.
    """

    ngrams: int = 2
    """Longest sequence of words that is a feature."""
    C: float = 10.0
    """Inverse strength of the L2 penalty, as scikit-learn's ``C``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ngrams < 1:
            raise ConfigError(f"probe.ngrams={self.ngrams} leaves no word; give 1 or more.")
        if self.C <= 0:
            raise ConfigError(f"probe.C={self.C} is not positive; give, for example, probe.C=10.")

    def fit(self, texts: Sequence[str], labels: BoolArray, parts: StrArray) -> FittedText:
        """Fit on the train and validation splits.

        Args:
            texts: the n statements.
            labels: bool[n].
            parts: str[n], the split of each, as in `evaluation.splits.Fold`.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        from probegrid.evaluation.splits import TRAIN, VALIDATION

        seen = [part in (TRAIN, VALIDATION) for part in parts]
        words = TfidfVectorizer(ngram_range=(1, self.ngrams))
        pipeline = make_pipeline(words, LogisticRegression(C=self.C, max_iter=10_000))
        pipeline.fit([text for text, keep in zip(texts, seen, strict=True) if keep], labels[seen])
        return FittedText(pipeline)


@dataclass(frozen=True)
class FittedText:
    """A fitted text baseline."""

    pipeline: Pipeline

    def scores(self, texts: Sequence[str]) -> FloatArray:
        """Log-odds of true for n statements: float64[n]."""
        scores: FloatArray = self.pipeline.decision_function(texts)
        return scores

    def probabilities(self, scores: FloatArray) -> FloatArray:
        """Probability of true for scores: float64[n]."""
        from scipy.special import expit

        probabilities: FloatArray = expit(scores)
        return probabilities
