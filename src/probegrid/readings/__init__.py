"""Readings: what a probe needs from a model, made once, stored, and shared."""
