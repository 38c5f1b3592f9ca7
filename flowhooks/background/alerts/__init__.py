"""Alerts: find problems that need a person's attention in the ledger, and notify plugins of them."""
