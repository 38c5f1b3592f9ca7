"""A fake engine, and the suites of tests that an engine client must pass."""
