"""Start, signals, supervision and shutdown of long-running processes."""
