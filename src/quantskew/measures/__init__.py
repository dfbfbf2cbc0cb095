"""What an Audit says of each group and of the whole model: pure functions, arrays in, tidy tables out."""

# Whoever reads the registry of measures finds them all in it.
from quantskew.measures import fairness, forward, surface, weights

__all__ = ["fairness", "forward", "odds", "surface", "weights"]
