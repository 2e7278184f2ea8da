"""Several gateway processes on one port: a supervising process and its workers."""
