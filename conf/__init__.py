"""The config groups, as data: ``pkg://probegrid.conf``."""
