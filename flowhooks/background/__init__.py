"""Background services of a process: retention, cluster membership, clock and file checks, alerts."""
