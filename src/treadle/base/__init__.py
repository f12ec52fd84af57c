"""Floor 0: nodes, rewriting, errors, spans and options."""
