"""Select the handlers of an event."""
