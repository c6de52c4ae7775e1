"""Kafka's record batch format (magic 2): written, checked, read, compressed."""
