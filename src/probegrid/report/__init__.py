"""Tables, paired comparisons and figures over many recorded cells.

Knows recorded cells as they lie on disk, and evaluation.
"""
