"""How good answers and scores are: correctness, ranking and calibration, with intervals and figures.

Knows labels, scores, groups and strings; nothing of models, data sets or configurations. Scores are larger
when the positive label (correct, true) is more likely.
"""
