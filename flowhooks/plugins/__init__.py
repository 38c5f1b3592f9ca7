"""Plugins: found, loaded, checked, and called by hooks."""
