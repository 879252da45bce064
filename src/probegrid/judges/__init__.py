"""Judges: scores that are computed from readings, each one small function with a declared need.

Knows what readings hold of a question, as plain numbers and texts, and the formulas; nothing of stores, models or
devices. A cell whose readings hold what a judge needs reports it beside its probe's own score.
"""

from probegrid.judges.evidence import Evidence, Read
from probegrid.judges.registry import Judge, Rises, all_judges, judge

__all__ = ["Evidence", "Judge", "Read", "Rises", "all_judges", "judge"]
