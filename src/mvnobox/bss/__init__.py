"""A brand's business support system, TM Forum's resources over PostgreSQL: one module a domain."""
