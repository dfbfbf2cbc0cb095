"""Training with quantized weights (QAT), and what it needs (section 5 of the paper)."""
