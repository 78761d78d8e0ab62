DROP VIEW ledger_difference
-- end of statement
DROP FUNCTION charge_create, charge_further, charge_units, debit, reserve, give_back, grant_buckets, close_expired
-- end of statement
-- What a bucket's end took away, and whether anything can still happen to it (indexes skip what is spent).
ALTER TABLE bucket
    ADD COLUMN lapsed bigint NOT NULL DEFAULT 0 CHECK (lapsed >= 0),
    ADD COLUMN spent boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT bucket_check,
    ADD CONSTRAINT bucket_promise CHECK (used + held + lapsed <= granted),
    -- Room on the page: the columns that change most are in no index, so an update stays where it is.
    SET (fillfactor = 70)
-- end of statement
UPDATE bucket SET spent = true WHERE used = granted
-- end of statement
DROP INDEX bucket_choice
-- end of statement
CREATE INDEX bucket_choice ON bucket (aid, unit, priority, valid_until, id) WHERE NOT spent
-- end of statement
CREATE INDEX bucket_account ON bucket (aid, id)
-- end of statement
CREATE INDEX bucket_end ON bucket (valid_until) WHERE NOT spent AND valid_until IS NOT NULL
-- end of statement
ALTER TABLE reservation
    DROP CONSTRAINT reservation_ref_fkey,
    DROP CONSTRAINT reservation_bucket_fkey,
    ALTER rating TYPE bigint,
    SET (fillfactor = 50)
-- end of statement
-- The key leads its index: with the brand first, plans that were made on empty tables look for a session's reference there
-- and read all sessions of the brand.
-- Per session: use per unit; per rating group {"n": newest sequence, "s": waits for
-- credit, "u": its unit}; the sweeper's next look.
ALTER TABLE session
    ALTER create_key TYPE uuid USING encode(substr(sha256(convert_to(create_key, 'UTF8')), 1, 16), 'hex')::uuid,
    ALTER used DROP DEFAULT,
    ALTER used TYPE jsonb USING CASE WHEN used = 0 THEN '{}' ELSE jsonb_build_object('octets', used) END,
    ALTER used SET DEFAULT '{}',
    ADD COLUMN created_stamp timestamptz,
    ADD COLUMN ended_by text CHECK (ended_by IN ('release', 'expiry', 'superseded')),
    ADD COLUMN ratings jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN told_at timestamptz,
    ADD COLUMN check_at timestamptz,
    ADD COLUMN purged boolean NOT NULL DEFAULT false,
    ALTER ref DROP DEFAULT,
    ALTER last_sequence TYPE bigint,
    DROP CONSTRAINT session_create_key_key,
    ADD CONSTRAINT session_create_key UNIQUE (create_key, brand),
    SET (fillfactor = 70)
-- end of statement
UPDATE session SET
    created_stamp = started_at,
    check_at = expires_at,
    ended_by = CASE WHEN ended_at IS NOT NULL THEN 'release' END,
    ratings = jsonb_build_object('1', jsonb_build_object('n', last_sequence, 's', starved))
-- end of statement
ALTER TABLE session ALTER created_stamp SET NOT NULL, ALTER check_at SET NOT NULL
-- end of statement
DROP INDEX session_open
-- end of statement
CREATE INDEX session_check ON session (check_at) WHERE ended_at IS NULL
-- end of statement
CREATE INDEX session_starved ON session (aid) WHERE starved
-- end of statement
CREATE INDEX session_ended ON session (ended_at) WHERE ended_at IS NOT NULL AND NOT purged
-- end of statement
-- The reply itself, not what it was made of.
ALTER TABLE answer
    DROP CONSTRAINT answer_ref_fkey,
    ALTER sequence TYPE bigint,
    ADD COLUMN operation text CHECK (operation IN ('create', 'update', 'release')),
    ALTER body TYPE text USING body::text
-- end of statement
UPDATE answer x SET
    operation = CASE WHEN x.sequence = (SELECT min(y.sequence) FROM answer y WHERE y.ref = x.ref) THEN 'create'
                     WHEN s.ended_by = 'release' AND x.sequence = s.last_sequence THEN 'release' ELSE 'update' END,
    body = json_build_object(
        'invocationTimeStamp', to_char(x.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'invocationSequenceNumber', x.sequence,
        'multipleUnitInformation', (
            SELECT coalesce(json_agg(json_strip_nulls(json_build_object(
                'ratingGroup', u -> 'rating', 'resultCode', u ->> 'result',
                'grantedUnit', CASE WHEN u ? 'granted' THEN json_build_object('totalVolume', u -> 'granted') END))), '[]')
            FROM jsonb_array_elements(x.body::jsonb) u))::text
    FROM session s WHERE s.ref = x.ref
-- end of statement
ALTER TABLE answer ALTER operation SET NOT NULL
-- end of statement
-- An entry is found by its account; a session and a bucket know theirs. One index less a row is what makes it quick.
DROP INDEX entry_bucket
-- end of statement
DROP INDEX entry_session
-- end of statement
CREATE INDEX entry_account ON entry (aid, id)
-- end of statement
CREATE INDEX entry_overrun ON entry (aid) WHERE debit = 'overrun'
-- end of statement
--   available → lapsed   what was left at the end of a bucket's validity
ALTER TABLE entry
    ALTER sequence TYPE bigint,
    ADD COLUMN rating bigint,
    DROP CONSTRAINT entry_credit_check,
    ADD CONSTRAINT entry_credit_check CHECK (credit IN ('available', 'held', 'used', 'lapsed'))
-- end of statement
-- Order of notifications, and when they were given up.
ALTER TABLE outbox
    ADD COLUMN n bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN failed_at timestamptz
-- end of statement
DROP INDEX outbox_due
-- end of statement
CREATE INDEX outbox_due ON outbox (next_at) WHERE done_at IS NULL AND failed_at IS NULL
-- end of statement
CREATE INDEX outbox_session ON outbox (ref, n) WHERE done_at IS NULL AND failed_at IS NULL
-- end of statement
-- The invariants. Empty on a sound ledger.
CREATE VIEW ledger_difference AS
WITH sums AS (
    SELECT bucket,
        coalesce(sum(amount) FILTER (WHERE debit = 'source'), 0) AS granted,
        coalesce(sum(amount) FILTER (WHERE credit = 'used'), 0) AS used,
        coalesce(sum(amount) FILTER (WHERE credit = 'lapsed'), 0) AS lapsed,
        coalesce(sum(amount) FILTER (WHERE credit = 'held'), 0) - coalesce(sum(amount) FILTER (WHERE debit = 'held'), 0) AS held,
        coalesce(sum(amount) FILTER (WHERE credit = 'available'), 0)
            - coalesce(sum(amount) FILTER (WHERE debit = 'available'), 0) AS available
    FROM entry WHERE bucket IS NOT NULL GROUP BY bucket
)
SELECT 'bucket ' || b.id AS what,
       'granted, used, held, lapsed, available are ' || concat_ws(', ', b.granted, b.used, b.held, b.lapsed, b.granted - b.used - b.held - b.lapsed)
       || '; entries say ' || coalesce(concat_ws(', ', s.granted, s.used, s.held, s.lapsed, s.available), 'nothing') AS difference
FROM bucket b LEFT JOIN sums s ON s.bucket = b.id
WHERE (b.granted, b.used, b.held, b.lapsed, b.granted - b.used - b.held - b.lapsed)
      IS DISTINCT FROM (s.granted, s.used, s.held, s.lapsed, s.available)
UNION ALL
SELECT 'bucket ' || s.bucket, 'has entries but does not exist' FROM sums s
WHERE NOT EXISTS (SELECT FROM bucket b WHERE b.id = s.bucket)
UNION ALL
SELECT 'bucket ' || b.id, 'is marked spent with ' || b.granted - b.used - b.lapsed || ' left' FROM bucket b
WHERE b.spent AND b.granted <> b.used + b.lapsed
UNION ALL
SELECT 'bucket ' || coalesce(b.id, r.bucket), 'holds ' || coalesce(b.held, 0) || '; reservations say ' || coalesce(r.amount, 0)
FROM bucket b FULL JOIN (SELECT bucket, sum(amount) AS amount FROM reservation GROUP BY bucket) r ON r.bucket = b.id
WHERE coalesce(b.held, 0) <> coalesce(r.amount, 0)
UNION ALL
SELECT 'session ' || coalesce(s.ref, e.ref) || ' ' || coalesce(s.unit, e.unit),
       'used ' || coalesce(s.amount, 0) || '; entries say ' || coalesce(e.amount, 0)
FROM (SELECT ref, key AS unit, value::bigint AS amount FROM session, jsonb_each_text(used)) s
FULL JOIN (SELECT ref, unit, sum(amount) AS amount FROM entry WHERE credit = 'used' AND ref IS NOT NULL GROUP BY ref, unit) e
     ON e.ref = s.ref AND e.unit = s.unit
WHERE coalesce(s.amount, 0) <> coalesce(e.amount, 0)
UNION ALL
SELECT 'session ' || r.ref, CASE WHEN s.ref IS NULL THEN 'does not exist' ELSE 'has ended' END || ', but holds ' || sum(r.amount)
FROM reservation r LEFT JOIN session s USING (ref) WHERE s.ref IS NULL OR s.ended_at IS NOT NULL GROUP BY r.ref, s.ref
