"""The engine of a log: partitions, transactions, offsets and groups, as a Kafka broker has them."""
