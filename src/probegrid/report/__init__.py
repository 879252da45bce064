"""Tables, paired comparisons and figures over many recorded cells.

Knows recorded cells as they lie on disk, and evaluation; must not know models, nor how a cell is computed.
"""
