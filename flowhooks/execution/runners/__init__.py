"""Who calls dispatch, and when; each runner in a file of its own."""
