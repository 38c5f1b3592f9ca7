"""waitress, hardened: sockets, connections, and a strict HTTP parser."""
