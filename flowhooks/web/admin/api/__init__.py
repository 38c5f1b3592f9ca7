"""The administration API: what the console and the commands show, as JSON."""
