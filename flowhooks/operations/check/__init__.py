"""`flowhooks check`: test whether a server with these settings would start."""
