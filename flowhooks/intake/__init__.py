"""Store a validated callback as an event, and build the answer for the engine."""
