"""The contract of a rule of correctness."""

from __future__ import annotations

import itertools

from probegrid.evaluation.rules import CorrectnessRule

TEXTS = ("Paris", "the Eiffel Tower", "42", "3.5 km", "Søren Kierkegaard", "co-op", "yes", "Rome, Italy")


def check_rule(rule: CorrectnessRule) -> None:
    """Hold a rule to what every rule promises.

    A reference is a right answer to its question, an empty answer to a question that has one is wrong, EM and F1 lie in
    [0, 1], neither the order nor repeats of references matter, and normalizing twice is normalizing once.

    Raises:
        AssertionError: it does not hold.
    """
    assert rule.name and rule.name == rule.name.strip(), "a rule needs a name"
    for text in TEXTS:
        found = rule.judge(text, [text])
        assert found == rule.judge(text, [text]), f"two verdicts on {text!r}"
        assert found.correct is True, f"the reference {text!r} is not right by its own rule"
        assert 0 <= found.em <= 1 and 0 <= found.f1 <= 1, f"EM {found.em} and F1 {found.f1} of {text!r}"
        assert rule.judge("", [text]).correct is False, (
            f"an empty answer is right where {text!r} is asked for"
        )
        once = rule.normalize(text)
        assert rule.normalize(once) == once, f"normalizing {text!r} twice gives {rule.normalize(once)!r}"
    for answer, references in itertools.product(TEXTS, itertools.combinations(TEXTS, 2)):
        verdict = rule.judge(answer, references)
        assert verdict == rule.judge(answer, references[::-1]), "the order of references matters"
        assert verdict == rule.judge(answer, [*references, *references]), "repeats of references matter"
    assert isinstance(rule.judge("anything", []).correct, bool), (
        "a question without references must be judged"
    )
