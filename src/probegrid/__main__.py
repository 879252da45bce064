"""``python -m probegrid``."""

from probegrid.cli import command

command()
