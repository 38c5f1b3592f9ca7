"""JSON representations, with the same names in commands and the administration API."""
