"""The ledger: the durable record of events, deliveries and attempts, in SQLite or PostgreSQL."""
