"""`exactly_once`: a handler is killed at every line, and what is left is compared."""
