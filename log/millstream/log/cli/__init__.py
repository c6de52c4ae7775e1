"""The commands over a log: topics, produce, consume, groups, transactions, log dump and verify.

Each module is imported when its command is used, and the log's engine when a log is opened.
"""
