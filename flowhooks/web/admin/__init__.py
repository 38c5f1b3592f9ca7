"""The administration listener: who may enter, the API and the console."""
