"""Everything of the log that opens sockets."""
