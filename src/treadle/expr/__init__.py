"""Floor 1: interned scalar expressions, their simplification, bounds and proofs."""
