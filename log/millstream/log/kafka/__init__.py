"""A log that is a Kafka cluster, or a Millstream server: `open_log("kafka://HOST:PORT")`.

librdkafka does the work, by way of confluent-kafka; it is imported when such a log is opened.
"""
