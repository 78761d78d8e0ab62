-- The MongoDB that follows the directory. Without one no change is noted.
CREATE TABLE mirror (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- Which it is: a digest of its hosts and database.
    target text NOT NULL,
    -- When a replica that writes to it was last alive.
    seen   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The transaction from which on changes are noted.
    xid    bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    -- Up to which IMSI the subscribers of before have been noted, '~' when all are; null when the MongoDB has been
    -- searched for those that the directory does not have any more.
    seeded text DEFAULT ''
)
-- end of statement
CREATE SEQUENCE mirror_label
-- end of statement
-- Subscribers whose document there may be old. One row each: only the newest state is written.
CREATE TABLE unmirrored (
    imsi         text PRIMARY KEY,
    -- Changes with every change and with every claim: who claimed it sees that it is still its own. Numbers of claims
    -- are in their order, and the document keeps the one that it was written under: an older claim does not overwrite it.
    label        bigint NOT NULL DEFAULT nextval('mirror_label'),
    -- The subscriber is new: there is no document, and none is looked for before it is inserted.
    fresh        boolean NOT NULL DEFAULT false,
    -- Whoever claimed it writes at present. A change does not end that: two do not write one document at once.
    leased_until timestamptz,
    attempts     integer NOT NULL DEFAULT 0,
    next_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    since        timestamptz NOT NULL DEFAULT clock_timestamp()
)
-- end of statement
CREATE INDEX unmirrored_due ON unmirrored (next_at)
-- end of statement
CREATE INDEX unmirrored_since ON unmirrored (since)
-- end of statement
CREATE FUNCTION unmirror() RETURNS trigger LANGUAGE plpgsql SET search_path = directory, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM mirror) THEN
        INSERT INTO unmirrored AS u (imsi, fresh) VALUES (coalesce(NEW.imsi, OLD.imsi), TG_OP = 'INSERT')
            ON CONFLICT (imsi) DO UPDATE
            SET label = nextval('mirror_label'), attempts = 0, next_at = clock_timestamp(),
                fresh = u.fresh AND TG_OP <> 'DELETE';
    END IF;
    RETURN NULL;
END $$
-- end of statement
-- After the triggers that withdraw, by their names: a subscriber's withdrawal is locked before its row here, as where a
-- withdrawal ends.
CREATE TRIGGER zz_unmirror AFTER INSERT OR DELETE ON subscriber FOR EACH ROW EXECUTE FUNCTION unmirror()
-- end of statement
CREATE TRIGGER zz_unmirror_changed AFTER UPDATE OF sealed, document, msisdn ON subscriber FOR EACH ROW
    WHEN (NEW.sealed IS DISTINCT FROM OLD.sealed OR NEW.document IS DISTINCT FROM OLD.document
        OR NEW.msisdn IS DISTINCT FROM OLD.msisdn)
    EXECUTE FUNCTION unmirror()
-- end of statement
-- A removed subscriber's document goes when the network has let go of it.
CREATE TRIGGER zz_unmirror AFTER DELETE ON withdrawal FOR EACH ROW EXECUTE FUNCTION unmirror()
-- end of statement
REVOKE ALL ON FUNCTION unmirror() FROM PUBLIC
