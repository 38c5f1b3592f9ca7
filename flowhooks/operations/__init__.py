"""What operators do, one use case a file."""
