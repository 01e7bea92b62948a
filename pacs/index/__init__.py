"""The index: SQLAlchemy Core over SQLite or PostgreSQL."""
