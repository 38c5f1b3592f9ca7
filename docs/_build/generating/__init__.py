"""What `docs/_build/generate.py` writes into the documentation, by subject."""
