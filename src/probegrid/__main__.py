"""``python -m probegrid``."""

from probegrid.cli import main

main()
