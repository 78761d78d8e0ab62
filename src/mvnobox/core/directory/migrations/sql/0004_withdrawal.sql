-- Subscribers whom the AMF has to let go of: suspended, removed, or on another SIM. Written in the transaction that
-- changes the subscription, so that none is forgotten.
CREATE TABLE withdrawal (
    imsi     text PRIMARY KEY,
    -- What the core had written of it: where it is attached in 4G, which the HSS looks up to cancel the location.
    written  jsonb NOT NULL DEFAULT '{}',
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts integer NOT NULL DEFAULT 0,
    next_at  timestamptz NOT NULL DEFAULT clock_timestamp()
)
-- end of statement
CREATE INDEX withdrawal_due ON withdrawal (next_at)
-- end of statement
CREATE FUNCTION withdraw() RETURNS trigger LANGUAGE plpgsql SET search_path = directory, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE'
        OR NEW.sealed IS DISTINCT FROM OLD.sealed
        OR (NEW.document -> 'subscriber_status' = '1'::jsonb
            AND OLD.document -> 'subscriber_status' IS DISTINCT FROM '1'::jsonb) THEN
        INSERT INTO withdrawal (imsi, written) VALUES (OLD.imsi, OLD.written)
            ON CONFLICT (imsi) DO UPDATE
            SET written = excluded.written, at = clock_timestamp(), attempts = 0, next_at = clock_timestamp();
    ELSIF OLD.document -> 'subscriber_status' = '1'::jsonb THEN
        -- Resumed before the AMF heard of it.
        DELETE FROM withdrawal WHERE imsi = OLD.imsi;
    END IF;
    RETURN NULL;
END $$
-- end of statement
CREATE TRIGGER withdraw_changed AFTER UPDATE OF sealed, document ON subscriber FOR EACH ROW
    WHEN (NEW.sealed IS DISTINCT FROM OLD.sealed
        OR NEW.document -> 'subscriber_status' IS DISTINCT FROM OLD.document -> 'subscriber_status')
    EXECUTE FUNCTION withdraw()
-- end of statement
CREATE TRIGGER withdraw_removed AFTER DELETE ON subscriber FOR EACH ROW EXECUTE FUNCTION withdraw()
-- end of statement
REVOKE ALL ON FUNCTION withdraw() FROM PUBLIC
