"""Figures: tables or an Audit and axes in, the axes out; one look for all."""
