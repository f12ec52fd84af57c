"""Floor 6: design spaces and the default schedules that they start from."""
