"""Code that tests share: harnesses, faults, clients, and the programs that `make` runs."""
