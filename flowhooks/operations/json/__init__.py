"""What there is as JSON has it: the same names for commands and the administration API."""
