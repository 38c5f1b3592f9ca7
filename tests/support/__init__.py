"""What tests share that is no test: harnesses, faults, clients, and the programs that `make` runs."""
