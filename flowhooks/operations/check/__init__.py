"""`flowhooks check`: whether a server with these settings would start."""
