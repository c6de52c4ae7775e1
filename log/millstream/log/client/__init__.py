"""Producer, consumer and log as users see them, on a broker in the same process."""
