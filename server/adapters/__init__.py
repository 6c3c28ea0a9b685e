"""What carries the ports out: database, broker connection, clock."""
