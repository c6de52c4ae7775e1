"""Whether a client may do what it asks: one file for each kind of resource, see `rights.py`."""
