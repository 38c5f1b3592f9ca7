"""The operators' console: HTML pages on the administration listener."""
