-- More of something for an account: [{unit, amount, validUntil, priority, source}]. Null: no such account.
CREATE FUNCTION grant_buckets(p_brand text, p_account text, p_request uuid, p_digest text, p_buckets jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    a record;
    before record;
    g record;
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
    FOR g IN SELECT * FROM jsonb_to_recordset(p_buckets)
             AS x(unit text, amount bigint, "validUntil" timestamptz, priority integer, source text) LOOP
        INSERT INTO bucket (aid, unit, granted, priority, valid_until, source)
            VALUES (a.aid, g.unit, g.amount, g.priority, g."validUntil", g.source) RETURNING id INTO b;
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
    END IF;
    RETURN jsonb_build_object('conflict', false, 'buckets', made);
END $$
-- end of statement
-- A new status; the account's sessions are told when it changes. The caller's statement has the account's row locked.
CREATE FUNCTION set_status(p_aid bigint, p_status text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE account SET status = p_status WHERE aid = p_aid AND status <> p_status;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO outbox (ref, uri, body)
        SELECT ref, notify_uri,
               CASE WHEN p_status <> 'active' THEN jsonb_build_object('notificationType', 'ABORT_CHARGING')
                    ELSE jsonb_build_object('notificationType', 'REAUTHORIZATION', 'reauthorizationDetails',
                             (SELECT coalesce(jsonb_agg(jsonb_build_object('ratingGroup', key::bigint) ORDER BY key::bigint), '[]')
                              FROM jsonb_object_keys(ratings) key)) END
        FROM session WHERE aid = p_aid AND (ended_at IS NULL OR starved) AND notify_uri IS NOT NULL;
END $$
-- end of statement
-- One session without a sign of life for too long: what it holds goes back. False: there is none left.
CREATE FUNCTION close_expired() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    c record;
    s record;
    a record;
BEGIN
    SELECT ref, aid INTO c FROM session WHERE ended_at IS NULL AND check_at < now() ORDER BY check_at LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- As a charging request does: the account first, then a fresh look at the session.
    SELECT status INTO a FROM account WHERE aid = c.aid FOR NO KEY UPDATE;
    SELECT expires_at, ended_at INTO s FROM session WHERE ref = c.ref;
    IF s.ended_at IS NOT NULL THEN
        RETURN true;
    END IF;
    IF s.expires_at >= now() THEN
        UPDATE session SET check_at = expires_at WHERE ref = c.ref;
        RETURN true;
    END IF;
    -- It stays marked as starved: if it lives after all, a grant still re-opens it.
    UPDATE session SET ended_at = now(), ended_by = 'expiry' WHERE ref = c.ref;
    IF give_back(c.ref, NULL) AND a.status = 'active' THEN
        PERFORM wake(c.aid, false);
    END IF;
    RETURN true;
END $$
-- end of statement
-- One account with buckets whose validity has ended: what is free in them lapses. False: there is none left.
CREATE FUNCTION lapse_ended() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    c record;
BEGIN
    SELECT aid INTO c FROM bucket
        WHERE NOT spent AND valid_until <= now() AND granted > used + held + lapsed ORDER BY valid_until LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM FROM account WHERE aid = c.aid FOR NO KEY UPDATE;
    WITH ended AS (
        SELECT id, granted - used - held - lapsed AS free FROM bucket
        WHERE aid = c.aid AND NOT spent AND valid_until <= now() AND granted > used + held + lapsed
    ), taken AS (
        UPDATE bucket b SET lapsed = b.lapsed + e.free, spent = b.held = 0 FROM ended e WHERE b.id = e.id
        RETURNING b.id, b.unit, e.free
    )
    INSERT INTO entry (aid, bucket, unit, debit, credit, amount) SELECT c.aid, id, unit, 'available', 'lapsed', free FROM taken;
    RETURN true;
END $$
-- end of statement
-- Forget the replies of sessions that ended long ago: their reference is unknown from then on. How many sessions.
CREATE FUNCTION purge_ended(p_seconds integer, p_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    refs uuid[];
BEGIN
    SELECT array_agg(ref) INTO refs FROM (
        SELECT ref FROM session WHERE ended_at < now() - make_interval(secs => p_seconds) AND NOT purged
        ORDER BY ended_at LIMIT p_limit FOR UPDATE SKIP LOCKED) t;
    UPDATE session SET purged = true, starved = false WHERE ref = ANY (refs);
    DELETE FROM answer WHERE ref = ANY (refs);
    DELETE FROM outbox WHERE ref = ANY (refs) AND (done_at IS NOT NULL OR failed_at IS NOT NULL);
    RETURN coalesce(cardinality(refs), 0);
END $$
