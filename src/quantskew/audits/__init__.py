"""The Audit, and how one is filled: a model run through the precisions."""
