"""Processes that serve or work: their start, signals, supervisor and end."""
