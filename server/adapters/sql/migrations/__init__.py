"""Alembic's migrations. A new one: see the head of `env.py`."""
