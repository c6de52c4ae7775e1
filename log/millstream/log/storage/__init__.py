"""The log on disk: partitions, their segments and indexes, and what happens after a crash."""
