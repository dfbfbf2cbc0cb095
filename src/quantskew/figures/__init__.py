"""Figures: an Audit, runs or a table and axes in, the axes out."""
