"""Runners: each decides when the dispatcher executes which delivery."""
