"""The pytest fixtures of the test kit; pytest finds them by itself where flowhooks is installed."""
