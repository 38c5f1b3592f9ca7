"""What a process shows of itself: metrics, logs, open files."""
