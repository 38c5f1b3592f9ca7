"""Work that a server does by itself: retention, cluster membership, clock and file checks, alerts."""
