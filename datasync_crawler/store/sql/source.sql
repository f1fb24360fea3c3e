-- Statements of `scrapy source`. {schema} is replaced by the quoted name of DB_SCHEMA.

-- name: move_source
-- Names another address of the same API, unless somebody else has meanwhile.
UPDATE {schema}.source SET api_base_url = %(to)s, updated_at = now()
WHERE api_base_url = %(from)s
RETURNING api_base_url;
