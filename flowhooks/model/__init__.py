"""The data that everything else is about: events, deliveries, handlers, selectors. No input or output."""
