"""The server's memory in a relational database: SQLite by default, PostgreSQL by URL."""
