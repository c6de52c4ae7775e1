"""Kafka's record batch format (magic 2): encoding, checking and decoding, compression, partitioning."""
