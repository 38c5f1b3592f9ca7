"""Run attempts: schedule them, choose their process or thread, and act on their outcome."""
