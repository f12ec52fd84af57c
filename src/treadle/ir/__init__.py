"""Floor 2: functions, modules and their text."""
