"""Connectors for real systems, one package each: `files`, `sql`."""
