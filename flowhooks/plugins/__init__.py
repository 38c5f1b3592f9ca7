"""Plugins: discovery, loading, checks and hook calls."""
