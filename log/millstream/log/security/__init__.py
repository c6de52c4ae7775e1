"""Who may connect, and who may do what: users, access control lists, TLS. `server/` asks."""
