"""Attempts: when they run, where they run, and what follows from their outcome."""
