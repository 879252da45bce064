"""Models: the plan of what they need, and loading them to it."""
