"""The embedded PostgreSQL server: made, started, shared by processes, stopped. Usable by itself.

`embedded.ensure_running` is the way in. Imports nothing of the other rooms, and knows no tables.
"""
