"""The generated parts of the documentation, by subject, for `docs/_build/generate.py`."""
