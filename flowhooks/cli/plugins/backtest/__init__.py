"""`flowhooks plugins try`: compare what the installed plugins and others make of stored events."""
