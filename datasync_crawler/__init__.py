"""Drains a large, rate-limited, offset-paginated events API into PostgreSQL, and proves it."""
