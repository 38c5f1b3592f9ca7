"""What `docs/generate.py` writes into the documentation, by subject; it must not know of pages or files."""
