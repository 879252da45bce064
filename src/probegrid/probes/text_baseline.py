"""Text baseline: what the words of the statements, or their characters, alone give away, with no model read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from probegrid.probes.base import TrainedProbe
from probegrid.schema.ranges import number_field

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from probegrid.evaluation.checks import FloatArray
    from probegrid.probes.fitting.features import Features


class Unit(Enum):
    """Of what a text's features are made."""

    words = "words"
    """Words of two letters or more, without case and punctuation; where no text has any, what stands between spaces."""
    characters = "characters"
    """Characters as they are: punctuation, white space, digits and parts of words too."""


@dataclass
class TextBaseline(TrainedProbe):
    """Logistic regression on TF-IDF weights of n-grams of words or characters.

    There is nothing to choose, so that the validation split is trained on too, and the threshold is a score of 0, an
    even chance.
    """

    ngrams: int = number_field(2, least=1, most=100, below="leaves no word")
    """Longest sequence of words that is a feature; of characters, as many more."""
    unit: Unit = Unit.words
    """``words`` or ``characters``."""
    C: float = number_field(10.0, above=0, least=1e-12, most=1e12)
    """Inverse strength of the L2 penalty, as scikit-learn's ``C``."""

    def fit(self, features: Features) -> FittedText:
        """Fit on the train and validation splits."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        from probegrid.evaluation.splits import TRAIN, VALIDATION

        seen = [part in (TRAIN, VALIDATION) for part in features.parts]
        texts = [text for text, keep in zip(features.texts, seen, strict=True) if keep]
        if self.unit is Unit.words:
            grams = TfidfVectorizer(ngram_range=(1, self.ngrams))
            # scikit-learn's words have two letters or more, and "2 + 3 = 5" holds none
            if not any(map(grams.build_tokenizer(), texts)):
                grams = TfidfVectorizer(ngram_range=(1, self.ngrams), token_pattern=r"\S+")  # noqa: S106
        else:
            grams = TfidfVectorizer(analyzer=partial(_character_grams, longest=2 * self.ngrams))
        pipeline = make_pipeline(grams, LogisticRegression(C=self.C, max_iter=10_000))
        pipeline.fit(texts, features.labels[seen])
        return FittedText(pipeline)


def _character_grams(text: str, longest: int) -> list[str]:
    """Sequences of characters, white space as it is: scikit-learn's own analyzer makes one space of all of it."""
    return [text[start : start + n] for n in range(1, longest + 1) for start in range(len(text) - n + 1)]


@dataclass(frozen=True)
class FittedText:
    """A fitted text baseline; its scores are log-odds, and an even chance is its threshold."""

    threshold: ClassVar[float | None] = 0.0
    scales: ClassVar[tuple[float, ...]] = (1.0,)
    pipeline: Pipeline

    def score(self, features: Features) -> FloatArray:
        """Log-odds of true for the n texts: float64[n, 1]."""
        scores: FloatArray = self.pipeline.decision_function(features.texts)
        return scores[:, None]
