"""What `docs/generate.py` writes into the documentation, by subject."""
