"""The administration API: the data of the console and the commands, as JSON."""
