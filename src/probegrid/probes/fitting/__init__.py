"""How activation probes are fitted: the numbers behind the probes, on torch tensors.

A package of its own because it imports torch, which naming and composing a probe must not.

Notation used for tensor shapes: n examples, l layers, d width of the residual stream, k penalties.
"""
