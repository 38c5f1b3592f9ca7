"""HTTP: the callback listener, the administration listener, and the server that both use."""
