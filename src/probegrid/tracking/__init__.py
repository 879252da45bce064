"""What a cell leaves behind: its folder on disk, and its run in MLflow.

Knows the files of a recorded cell and MLflow; nothing of models, datasets or probes.
"""
