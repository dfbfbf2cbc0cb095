"""What an Audit says of each group: pure functions, arrays in, values or tidy tables out."""
