"""Weights and activations on a grid of integers, in models that are trained already."""
