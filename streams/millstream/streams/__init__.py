"""Stream processing: apps of decorated functions over the topics of a Millstream log."""
