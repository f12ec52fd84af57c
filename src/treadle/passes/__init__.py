"""Floor 4: functions from module to module."""
