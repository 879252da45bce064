"""The door: from what a person typed to Hydra's grammar, and from what Hydra says to one sentence."""
