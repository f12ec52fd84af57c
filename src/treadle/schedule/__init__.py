"""Floor 4: schedule primitives, each an instruction that keeps the meaning or refuses."""
