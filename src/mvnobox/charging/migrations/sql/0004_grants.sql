DROP FUNCTION grant_buckets
-- end of statement
-- The pace at which a bucket may be used, `dl=<bit/s>;ul=<bit/s>`; null: full speed. What is said of a quota out of it is a
-- final unit indication that restricts access (TS 32.291 clause 6.1.6.2.1.12), by a filter of this name.
ALTER TABLE bucket ADD COLUMN throttle text CHECK (throttle ~ '^dl=[1-9][0-9]{0,11};ul=[1-9][0-9]{0,11}$')
-- end of statement
-- More of something for an account: [{unit, amount, validUntil, priority, source, throttle}]. Null: no such account.
-- `p_rollover` {unit, source, endedAt, limit, validUntil, priority}: what that source's buckets of this end have left lives
-- on in one more bucket, at most so much that with earlier ones it is `limit`; in them it lapses, in the same transaction.
CREATE FUNCTION grant_buckets(p_brand text, p_account text, p_request uuid, p_digest text, p_buckets jsonb,
                              p_rollover jsonb DEFAULT NULL)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    a record;
    before record;
    g record;
    r record;
    rolled bigint;
    made jsonb := '[]';
    b bigint;
BEGIN
    SELECT aid, status INTO a FROM account WHERE brand = p_brand AND account_id = p_account FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT * INTO before FROM grant_request WHERE brand = p_brand AND request_id = p_request;
    IF FOUND THEN
        RETURN jsonb_build_object('conflict', before.digest <> p_digest OR before.aid <> a.aid, 'buckets', before.answer);
    END IF;
    IF p_rollover IS NOT NULL THEN
        SELECT * INTO r FROM jsonb_to_record(p_rollover)
            AS x(unit text, source text, "endedAt" timestamptz, "limit" bigint, "validUntil" timestamptz, priority integer);
        -- What is held is a session's: it goes on in the bucket that it was promised from.
        SELECT coalesce(sum(granted - used - held), 0) INTO rolled FROM bucket
            WHERE aid = a.aid AND unit = r.unit AND source = r.source AND valid_until = r."endedAt";
        WITH ended AS (
            SELECT id, granted - used - held - lapsed AS free FROM bucket
            WHERE aid = a.aid AND unit = r.unit AND source = r.source AND valid_until = r."endedAt"
                AND granted > used + held + lapsed
        ), taken AS (
            UPDATE bucket k SET lapsed = k.lapsed + e.free, spent = k.held = 0 FROM ended e WHERE k.id = e.id
            RETURNING k.id, k.unit, e.free
        )
        INSERT INTO entry (aid, bucket, unit, debit, credit, amount)
            SELECT a.aid, id, unit, 'available', 'lapsed', free FROM taken;
        IF r."limit" IS NOT NULL THEN
            rolled := least(rolled, r."limit" - (
                SELECT coalesce(sum(granted - used - lapsed), 0) FROM bucket
                WHERE aid = a.aid AND unit = r.unit AND source = 'rollover:' || r.source AND NOT spent
                    AND valid_until > r."endedAt"));
        END IF;
        IF rolled > 0 THEN
            p_buckets := p_buckets || jsonb_build_array(jsonb_build_object('unit', r.unit, 'amount', rolled,
                'validUntil', r."validUntil", 'priority', r.priority, 'source', 'rollover:' || r.source));
        END IF;
    END IF;
    FOR g IN SELECT * FROM jsonb_to_recordset(p_buckets)
             AS x(unit text, amount bigint, "validUntil" timestamptz, priority integer, source text, throttle text) LOOP
        INSERT INTO bucket (aid, unit, granted, priority, valid_until, source, throttle)
            VALUES (a.aid, g.unit, g.amount, g.priority, g."validUntil", g.source, g.throttle) RETURNING id INTO b;
        INSERT INTO entry (aid, bucket, unit, debit, credit, amount)
            VALUES (a.aid, b, g.unit, 'source', 'available', g.amount);
        made := made || jsonb_build_object('id', b, 'unit', g.unit, 'amount', g.amount, 'validUntil', g."validUntil",
                                           'priority', g.priority, 'source', g.source);
    END LOOP;
    IF EXISTS (SELECT FROM bucket k WHERE k.aid = a.aid GROUP BY k.unit HAVING sum(k.granted) > 4611686018427387904) THEN
        RAISE EXCEPTION 'an account holds at most 2^62 of a unit' USING ERRCODE = '22003';
    END IF;
    INSERT INTO grant_request (brand, request_id, aid, digest, answer) VALUES (p_brand, p_request, a.aid, p_digest, made);
    IF a.status = 'active' THEN
        PERFORM wake(a.aid, true);
        -- Who is slowed and may be quick again hears of it now, not when the slow quota ends.
        INSERT INTO outbox (ref, uri, body)
            SELECT s.ref, s.notify_uri, jsonb_build_object('notificationType', 'REAUTHORIZATION', 'reauthorizationDetails',
                       jsonb_agg(DISTINCT jsonb_build_object('ratingGroup', v.rating)))
            FROM session s JOIN reservation v USING (ref) JOIN bucket k ON k.id = v.bucket
            WHERE s.aid = a.aid AND s.ended_at IS NULL AND s.notify_uri IS NOT NULL AND k.throttle IS NOT NULL
                AND EXISTS (SELECT FROM jsonb_array_elements(made) m JOIN bucket n ON n.id = (m ->> 'id')::bigint
                            WHERE n.throttle IS NULL AND n.unit = k.unit)
            GROUP BY s.ref, s.notify_uri;
    END IF;
    RETURN jsonb_build_object('conflict', false, 'buckets', made);
END $$
