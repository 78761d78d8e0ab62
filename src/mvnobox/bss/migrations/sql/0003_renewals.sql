-- A line's periods are counted from its anchor (a local day); `renews_at`: when the next one begins, infinity where it
-- does not renew. Lines of before get theirs at the first look.
ALTER TABLE product
    ADD COLUMN anchor date,
    ADD COLUMN period integer NOT NULL DEFAULT 0 CHECK (period >= 0),
    ADD COLUMN renews_at timestamptz,
    ADD COLUMN auto_renew boolean
-- end of statement
CREATE INDEX product_due ON product (renews_at) WHERE status = 'active'
