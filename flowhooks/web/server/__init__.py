"""A hardened waitress: sockets, connections, and a strict HTTP parser."""
