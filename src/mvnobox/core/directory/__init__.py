"""The subscriber directory: Open5GS's subscriber collection on PostgreSQL, read by the MongoDB wire protocol."""
