"""The administration listener: authentication, the API and the console."""
