-- An order adds a product, or changes or ends the one in `target`.
ALTER TABLE product_order
    ADD COLUMN action text NOT NULL DEFAULT 'add' CHECK (action IN ('add', 'modify', 'delete')),
    ADD COLUMN target uuid REFERENCES product,
    -- What a modification asked for: {"status": …} or {"simSwap": true}.
    ADD COLUMN change jsonb,
    ADD CHECK ((action = 'add') = (target IS NULL))
-- end of statement
CREATE INDEX product_order_target ON product_order (target) WHERE target IS NOT NULL
-- end of statement
-- Lines made in one go, before they have customers.
CREATE TABLE batch (
    id          text PRIMARY KEY,
    plan        text NOT NULL,
    wanted      integer NOT NULL CHECK (wanted > 0),
    made        integer NOT NULL DEFAULT 0 CHECK (made BETWEEN 0 AND wanted),
    created_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
)
-- end of statement
ALTER TABLE product
    ALTER COLUMN order_id DROP NOT NULL,
    ALTER COLUMN party DROP NOT NULL,
    ADD COLUMN batch text REFERENCES batch,
    ADD COLUMN batch_index integer,
    ADD UNIQUE (batch, batch_index),
    ADD CHECK (num_nonnulls(batch, batch_index) IN (0, 2)),
    ADD CHECK (batch IS NOT NULL OR (order_id IS NOT NULL AND party IS NOT NULL))
-- end of statement
CREATE INDEX product_started ON product (started_at DESC)
-- end of statement
CREATE INDEX product_msisdn ON product (msisdn)
-- end of statement
CREATE INDEX product_iccid ON product (iccid)
-- end of statement
CREATE INDEX number_rested ON number (released_at) WHERE released_at IS NOT NULL
-- end of statement
CREATE INDEX sim_product ON sim (product)
-- end of statement
-- What happened to subscribers, for those who must act on it in the core; taken at least once.
CREATE TABLE event (
    id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    type     text NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    product  uuid NOT NULL REFERENCES product,
    body     jsonb NOT NULL,
    taken_at timestamptz
)
-- end of statement
CREATE INDEX event_open ON event (sequence) WHERE taken_at IS NULL
-- end of statement
ALTER TABLE outbox ADD COLUMN bulk boolean NOT NULL DEFAULT false
-- end of statement
CREATE INDEX outbox_next ON outbox (bulk, sequence) WHERE done_at IS NULL
