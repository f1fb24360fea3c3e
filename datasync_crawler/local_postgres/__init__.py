"""A PostgreSQL server of this machine's own: made, started, shared, stopped; usable by itself.

`embedded.ensure_running` is the way in. Imports nothing of the other rooms, and knows no tables.
"""
