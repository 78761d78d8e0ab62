CREATE TABLE account (
    aid         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    brand       text NOT NULL,
    account_id  text NOT NULL,
    currency    text NOT NULL,
    timezone    text NOT NULL,
    status      text NOT NULL CHECK (status IN ('active', 'suspended', 'terminated')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (brand, account_id)
)
-- end of statement
CREATE TABLE subscriber (
    subscriber_id text PRIMARY KEY,
    aid           bigint NOT NULL REFERENCES account
)
-- end of statement
CREATE INDEX subscriber_account ON subscriber (aid)
-- end of statement
CREATE TABLE bucket (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    aid         bigint NOT NULL REFERENCES account,
    unit        text NOT NULL CHECK (unit IN ('octets', 'seconds', 'messages', 'minor')),
    granted     bigint NOT NULL CHECK (granted > 0),
    used        bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    held        bigint NOT NULL DEFAULT 0 CHECK (held >= 0),
    priority    integer NOT NULL,
    valid_until timestamptz,
    source      text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- The promise of prepaid: what is used and what is held never exceed what was granted.
    CHECK (used + held <= granted)
)
-- end of statement
CREATE INDEX bucket_choice ON bucket (aid, unit, priority, valid_until, id)
-- end of statement
CREATE TABLE session (
    ref           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    aid           bigint NOT NULL REFERENCES account,
    brand         text NOT NULL,
    subscriber_id text NOT NULL,
    create_key    text NOT NULL UNIQUE,
    notify_uri    text,
    started_at    timestamptz NOT NULL DEFAULT now(),
    ended_at      timestamptz,
    expires_at    timestamptz NOT NULL,
    last_sequence integer NOT NULL,
    starved       boolean NOT NULL DEFAULT false,
    used          bigint NOT NULL DEFAULT 0,
    denied        integer NOT NULL DEFAULT 0
)
-- end of statement
CREATE INDEX session_account ON session (aid, started_at DESC)
-- end of statement
CREATE INDEX session_open ON session (expires_at) WHERE ended_at IS NULL
-- end of statement
CREATE TABLE reservation (
    ref    uuid NOT NULL REFERENCES session,
    rating integer NOT NULL,
    bucket bigint NOT NULL REFERENCES bucket,
    amount bigint NOT NULL CHECK (amount > 0),
    PRIMARY KEY (ref, rating, bucket)
)
-- end of statement
CREATE TABLE answer (
    ref      uuid NOT NULL REFERENCES session,
    sequence integer NOT NULL,
    body     jsonb NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (ref, sequence)
)
-- end of statement
-- Double entry: every row takes an amount from one account of the bucket and puts it into another.
--   source → available  granted      available → held  reserved      held → available  returned
--   held → used         used         available → used  used beyond what was held
--   overrun → used      used when nothing was left (bucket is null): owed by nobody, lost to nobody
CREATE TABLE entry (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    aid      bigint NOT NULL,
    bucket   bigint,
    ref      uuid,
    sequence integer,
    unit     text NOT NULL,
    debit    text NOT NULL CHECK (debit IN ('source', 'available', 'held', 'overrun')),
    credit   text NOT NULL CHECK (credit IN ('available', 'held', 'used')),
    amount   bigint NOT NULL CHECK (amount > 0)
)
-- end of statement
CREATE INDEX entry_bucket ON entry (bucket)
-- end of statement
CREATE INDEX entry_session ON entry (ref)
-- end of statement
CREATE FUNCTION entry_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger entries are append-only' USING ERRCODE = '55000';
END $$
-- end of statement
CREATE TRIGGER entry_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON entry
    FOR EACH STATEMENT EXECUTE FUNCTION entry_is_final()
-- end of statement
CREATE TABLE grant_request (
    brand      text NOT NULL,
    request_id uuid NOT NULL,
    aid        bigint NOT NULL REFERENCES account,
    digest     text NOT NULL,
    answer     jsonb NOT NULL,
    PRIMARY KEY (brand, request_id)
)
-- end of statement
CREATE TABLE outbox (
    id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    at       timestamptz NOT NULL DEFAULT now(),
    ref      uuid REFERENCES session,
    uri      text NOT NULL,
    body     jsonb NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_at  timestamptz NOT NULL DEFAULT now(),
    done_at  timestamptz
)
-- end of statement
CREATE INDEX outbox_due ON outbox (next_at) WHERE done_at IS NULL
-- end of statement
-- Give back what a session holds. The account is locked by the caller.
CREATE FUNCTION give_back(p_ref uuid, p_rating integer, p_sequence integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH gone AS (
        DELETE FROM reservation r WHERE r.ref = p_ref AND (p_rating IS NULL OR r.rating = p_rating) RETURNING r.*
    ), total AS (
        SELECT bucket, sum(amount)::bigint AS amount FROM gone GROUP BY bucket
    ), returned AS (
        UPDATE bucket b SET held = b.held - t.amount FROM total t WHERE b.id = t.bucket
        RETURNING b.aid, b.id, b.unit, t.amount
    )
    INSERT INTO entry (aid, bucket, ref, sequence, unit, debit, credit, amount)
    SELECT aid, id, p_ref, p_sequence, unit, 'held', 'available', amount FROM returned;
END $$
-- end of statement
-- Debit what was used: from what the session holds first, then from what is available, the rest as overrun.
CREATE FUNCTION debit(p_aid bigint, p_ref uuid, p_sequence integer, p_rating integer, p_unit text, p_used bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    rest bigint := p_used;
    take bigint;
    r record;
BEGIN
    FOR r IN SELECT v.bucket, v.amount FROM reservation v JOIN bucket b ON b.id = v.bucket
             WHERE v.ref = p_ref AND v.rating = p_rating ORDER BY b.priority, b.valid_until NULLS LAST, b.id LOOP
        EXIT WHEN rest = 0;
        take := least(rest, r.amount);
        UPDATE bucket SET held = held - take, used = used + take WHERE id = r.bucket;
        IF take = r.amount THEN
            DELETE FROM reservation WHERE ref = p_ref AND rating = p_rating AND bucket = r.bucket;
        ELSE
            UPDATE reservation SET amount = amount - take WHERE ref = p_ref AND rating = p_rating AND bucket = r.bucket;
        END IF;
        INSERT INTO entry (aid, bucket, ref, sequence, unit, debit, credit, amount)
            VALUES (p_aid, r.bucket, p_ref, p_sequence, p_unit, 'held', 'used', take);
        rest := rest - take;
    END LOOP;
    IF rest > 0 THEN
        FOR r IN SELECT b.id, b.granted - b.used - b.held AS free FROM bucket b
                 WHERE b.aid = p_aid AND b.unit = p_unit AND b.granted > b.used + b.held
                   AND (b.valid_until IS NULL OR b.valid_until > now())
                 ORDER BY b.priority, b.valid_until NULLS LAST, b.id LOOP
            EXIT WHEN rest = 0;
            take := least(rest, r.free);
            UPDATE bucket SET used = used + take WHERE id = r.id;
            INSERT INTO entry (aid, bucket, ref, sequence, unit, debit, credit, amount)
                VALUES (p_aid, r.id, p_ref, p_sequence, p_unit, 'available', 'used', take);
            rest := rest - take;
        END LOOP;
    END IF;
    IF rest > 0 THEN
        INSERT INTO entry (aid, bucket, ref, sequence, unit, debit, credit, amount)
            VALUES (p_aid, NULL, p_ref, p_sequence, p_unit, 'overrun', 'used', rest);
    END IF;
    UPDATE session SET used = used + p_used WHERE ref = p_ref;
END $$
-- end of statement
-- Hold up to p_want for a session; how much was held.
CREATE FUNCTION reserve(p_aid bigint, p_ref uuid, p_sequence integer, p_rating integer, p_unit text, p_want bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    rest bigint := p_want;
    take bigint;
    r record;
BEGIN
    FOR r IN SELECT b.id, b.granted - b.used - b.held AS free FROM bucket b
             WHERE b.aid = p_aid AND b.unit = p_unit AND b.granted > b.used + b.held
               AND (b.valid_until IS NULL OR b.valid_until > now())
             ORDER BY b.priority, b.valid_until NULLS LAST, b.id LOOP
        EXIT WHEN rest = 0;
        take := least(rest, r.free);
        UPDATE bucket SET held = held + take WHERE id = r.id;
        INSERT INTO reservation (ref, rating, bucket, amount) VALUES (p_ref, p_rating, r.id, take);
        INSERT INTO entry (aid, bucket, ref, sequence, unit, debit, credit, amount)
            VALUES (p_aid, r.id, p_ref, p_sequence, p_unit, 'available', 'held', take);
        rest := rest - take;
    END LOOP;
    RETURN p_want - rest;
END $$
-- end of statement
-- The units of one request, on a locked account: [{rating, unit, used, want}] → [{rating, result, granted, final}].
CREATE FUNCTION charge_units(p_aid bigint, p_ref uuid, p_sequence integer, p_status text, p_units jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    u record;
    got bigint;
    answers jsonb := '[]';
    hungry boolean := false;
    asked boolean := false;
BEGIN
    FOR u IN SELECT * FROM jsonb_to_recordset(p_units) AS x(rating integer, unit text, used bigint, want bigint) LOOP
        IF u.unit IS NULL THEN
            answers := answers || jsonb_build_object('rating', u.rating, 'result', 'RATING_FAILED');
            CONTINUE;
        END IF;
        IF u.used > 0 THEN
            PERFORM debit(p_aid, p_ref, p_sequence, u.rating, u.unit, u.used);
        END IF;
        PERFORM give_back(p_ref, u.rating, p_sequence);
        IF u.want IS NULL THEN
            answers := answers || jsonb_build_object('rating', u.rating, 'result', 'SUCCESS');
            CONTINUE;
        END IF;
        asked := true;
        IF p_status <> 'active' THEN
            answers := answers || jsonb_build_object('rating', u.rating, 'result', 'END_USER_SERVICE_DENIED');
            CONTINUE;
        END IF;
        got := reserve(p_aid, p_ref, p_sequence, u.rating, u.unit, u.want);
        IF got = 0 THEN
            hungry := true;
            answers := answers || jsonb_build_object('rating', u.rating, 'result', 'QUOTA_LIMIT_REACHED');
        ELSE
            answers := answers || jsonb_build_object('rating', u.rating, 'result', 'SUCCESS', 'granted', got,
                                                     'final', got < u.want);
        END IF;
    END LOOP;
    IF asked THEN
        UPDATE session SET starved = hungry, denied = denied + hungry::integer WHERE ref = p_ref;
    END IF;
    RETURN answers;
END $$
-- end of statement
-- Nchf create. One transaction, exactly once by p_key. Null: the subscriber has no account of this brand.
CREATE FUNCTION charge_create(p_brand text, p_subscriber text, p_key text, p_sequence integer, p_units jsonb,
                              p_notify text, p_validity integer)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    a record;
    s uuid;
    body jsonb;
BEGIN
    SELECT c.aid, c.status INTO a FROM subscriber b JOIN account c USING (aid)
        WHERE b.subscriber_id = p_subscriber AND c.brand = p_brand FOR UPDATE OF c;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT ref INTO s FROM session WHERE create_key = p_key;
    IF FOUND THEN
        RETURN jsonb_build_object('ref', s, 'repeated', true,
            'units', (SELECT x.body FROM answer x WHERE x.ref = s AND x.sequence = p_sequence));
    END IF;
    INSERT INTO session (aid, brand, subscriber_id, create_key, notify_uri, expires_at, last_sequence)
        VALUES (a.aid, p_brand, p_subscriber, p_key, p_notify, now() + make_interval(secs => p_validity), p_sequence)
        RETURNING ref INTO s;
    body := charge_units(a.aid, s, p_sequence, a.status, p_units);
    INSERT INTO answer (ref, sequence, body) VALUES (s, p_sequence, body);
    RETURN jsonb_build_object('ref', s, 'repeated', false, 'units', body);
END $$
-- end of statement
-- Nchf update and release. Null: no such open session of this brand.
CREATE FUNCTION charge_further(p_brand text, p_ref uuid, p_sequence integer, p_units jsonb, p_notify text,
                               p_validity integer, p_release boolean)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    a record;
    done boolean;
    body jsonb;
BEGIN
    SELECT c.aid, c.status INTO a FROM session s JOIN account c USING (aid)
        WHERE s.ref = p_ref AND s.brand = p_brand FOR UPDATE OF c;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    -- After the lock: a twin of this request may just have been answered.
    SELECT x.body INTO body FROM answer x WHERE x.ref = p_ref AND x.sequence = p_sequence;
    IF FOUND THEN
        RETURN jsonb_build_object('repeated', true, 'units', body);
    END IF;
    SELECT ended_at IS NOT NULL INTO done FROM session WHERE ref = p_ref;
    IF done THEN
        -- Late usage of an ended session is still usage; it gets no new quota.
        SELECT coalesce(jsonb_agg(x - 'want'), '[]') INTO p_units FROM jsonb_array_elements(p_units) x;
    END IF;
    body := charge_units(a.aid, p_ref, p_sequence, a.status, p_units);
    IF p_release THEN
        PERFORM give_back(p_ref, NULL, p_sequence);
    END IF;
    UPDATE session SET
        last_sequence = greatest(last_sequence, p_sequence),
        notify_uri = coalesce(p_notify, notify_uri),
        expires_at = greatest(expires_at, now() + make_interval(secs => p_validity)),
        ended_at = CASE WHEN p_release THEN coalesce(ended_at, now()) ELSE ended_at END,
        starved = starved AND NOT p_release
        WHERE ref = p_ref;
    INSERT INTO answer (ref, sequence, body) VALUES (p_ref, p_sequence, body);
    RETURN jsonb_build_object('repeated', false, 'units', body);
END $$
-- end of statement
-- More of something for an account: [{unit, amount, validUntil, priority, source}]. Null: no such account.
CREATE FUNCTION grant_buckets(p_brand text, p_account text, p_request uuid, p_digest text, p_buckets jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    a bigint;
    before record;
    g record;
    made jsonb := '[]';
    b bigint;
BEGIN
    SELECT aid INTO a FROM account WHERE brand = p_brand AND account_id = p_account FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT * INTO before FROM grant_request WHERE brand = p_brand AND request_id = p_request;
    IF FOUND THEN
        RETURN jsonb_build_object('conflict', before.digest <> p_digest OR before.aid <> a, 'buckets', before.answer);
    END IF;
    FOR g IN SELECT * FROM jsonb_to_recordset(p_buckets)
             AS x(unit text, amount bigint, "validUntil" timestamptz, priority integer, source text) LOOP
        INSERT INTO bucket (aid, unit, granted, priority, valid_until, source)
            VALUES (a, g.unit, g.amount, g.priority, g."validUntil", g.source) RETURNING id INTO b;
        INSERT INTO entry (aid, bucket, unit, debit, credit, amount) VALUES (a, b, g.unit, 'source', 'available', g.amount);
        made := made || jsonb_build_object('id', b, 'unit', g.unit, 'amount', g.amount, 'validUntil', g."validUntil",
                                           'priority', g.priority, 'source', g.source);
    END LOOP;
    INSERT INTO grant_request (brand, request_id, aid, digest, answer) VALUES (p_brand, p_request, a, p_digest, made);
    -- Sessions that were turned down may ask again (TS 32.291 clause 5.2.2.5).
    INSERT INTO outbox (ref, uri, body)
        SELECT ref, notify_uri, '{"notificationType": "REAUTHORIZATION", "reauthorizationDetails": [{"ratingGroup": 1}]}'
        FROM session WHERE aid = a AND starved AND ended_at IS NULL AND notify_uri IS NOT NULL;
    RETURN jsonb_build_object('conflict', false, 'buckets', made);
END $$
-- end of statement
-- Sessions whose release never came: what they hold goes back. How many were closed.
CREATE FUNCTION close_expired(p_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    s record;
    closed integer := 0;
BEGIN
    FOR s IN SELECT ref, aid FROM session WHERE ended_at IS NULL AND expires_at < now() ORDER BY expires_at LIMIT p_limit LOOP
        PERFORM 1 FROM account WHERE aid = s.aid FOR UPDATE;
        PERFORM 1 FROM session WHERE ref = s.ref AND ended_at IS NULL AND expires_at < now();
        CONTINUE WHEN NOT FOUND;
        PERFORM give_back(s.ref, NULL, NULL);
        UPDATE session SET ended_at = now(), starved = false WHERE ref = s.ref;
        closed := closed + 1;
    END LOOP;
    RETURN closed;
END $$
-- end of statement
-- The invariants. Empty on a sound ledger.
CREATE VIEW ledger_difference AS
WITH sums AS (
    SELECT bucket,
        coalesce(sum(amount) FILTER (WHERE debit = 'source'), 0) AS granted,
        coalesce(sum(amount) FILTER (WHERE credit = 'used'), 0) AS used,
        coalesce(sum(amount) FILTER (WHERE credit = 'held'), 0) - coalesce(sum(amount) FILTER (WHERE debit = 'held'), 0) AS held
    FROM entry WHERE bucket IS NOT NULL GROUP BY bucket
)
SELECT 'bucket ' || b.id AS what, 'granted, used, held are ' || b.granted || ', ' || b.used || ', ' || b.held
       || '; entries say ' || coalesce(s.granted, 0) || ', ' || coalesce(s.used, 0) || ', ' || coalesce(s.held, 0) AS difference
FROM bucket b LEFT JOIN sums s ON s.bucket = b.id
WHERE (b.granted, b.used, b.held) IS DISTINCT FROM (s.granted, s.used, s.held)
UNION ALL
SELECT 'bucket ' || b.id, 'holds ' || b.held || '; reservations say ' || coalesce(r.amount, 0)
FROM bucket b LEFT JOIN (SELECT bucket, sum(amount) AS amount FROM reservation GROUP BY bucket) r ON r.bucket = b.id
WHERE b.held <> coalesce(r.amount, 0)
UNION ALL
SELECT 'session ' || s.ref, 'used ' || s.used || '; entries say ' || coalesce(e.amount, 0)
FROM session s LEFT JOIN (SELECT ref, sum(amount) AS amount FROM entry WHERE credit = 'used' GROUP BY ref) e USING (ref)
WHERE s.used <> coalesce(e.amount, 0)
UNION ALL
SELECT 'session ' || s.ref, 'ended, but holds ' || r.amount
FROM session s JOIN reservation r USING (ref) WHERE s.ended_at IS NOT NULL
