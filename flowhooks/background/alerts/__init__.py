"""Alerts: what a person must look at, found in the ledger and sent to plugins."""
