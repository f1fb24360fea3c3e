"""PostgreSQL: connections, tables, statements. The only room that imports psycopg2."""
