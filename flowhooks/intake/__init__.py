"""From a checked callback to a stored event, and the engine's answer."""
