"""Metrics, logs and the limit of open files of a process."""
