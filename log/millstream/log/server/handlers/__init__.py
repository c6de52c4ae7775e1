"""What the server answers: one file for each group of APIs. `dispatch.py` says how one is added."""
