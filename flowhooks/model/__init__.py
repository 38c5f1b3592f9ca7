"""The domain model: events, deliveries, handlers, selectors. It does no input or output."""
