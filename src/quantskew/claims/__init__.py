"""The paper's claims, each a predicate on evidence, and their verdicts."""
