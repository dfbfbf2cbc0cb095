"""Grids of chapters and audits, run by Snakemake, and the page that compares them."""
