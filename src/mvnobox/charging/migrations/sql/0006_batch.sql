-- Charging requests that came together, as parallel arrays, in one transaction; for each its place (from 1) and what
-- `charge` would answer. A request of one rating group has it in p_rating, p_unit, p_used, p_wanted; any other has null
-- there and array literals in p_ratings, p_units, p_useds, p_wanteds.
--
-- The first requests of each account are charged together with the other accounts', up to the first one that is out of the
-- ordinary. Ordinary is a new request of an open session (or a new session) of an active account, the only one of its
-- session here, where the first bucket suffices for what was used and what is wanted, also after the requests before it.
-- All others go to `charge`, in the order of accounts and, within an account, in that of the arrays.
CREATE OR REPLACE FUNCTION charge_batch(
    p_op text[], p_brand text[], p_ref uuid[], p_sequence bigint[], p_subscriber text[], p_key uuid[],
    p_stamp timestamptz[], p_again boolean[], p_notify text[],
    p_rating bigint[], p_unit text[], p_used bigint[], p_wanted bigint[],
    p_ratings text[], p_units text[], p_useds text[], p_wanteds text[],
    p_validity integer, p_grace integer, p_percent integer, p_linger integer
) RETURNS TABLE (o_n bigint, o_outcome text, o_ref uuid, o_body text, o_overrun bigint, o_denied integer)
LANGUAGE plpgsql
-- Plans are made early, when tables may be small, and kept.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_aid bigint[];
    v_done bigint[];
    v_bodies text[];
    v_refs uuid[];
    v_wake bigint[];
    v_begin text := '{"invocationTimeStamp":"' || to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
        || '","invocationSequenceNumber":';
    v_holding timestamptz := now() + make_interval(secs => p_validity + p_grace);
    v_idle timestamptz := now() + make_interval(secs => p_linger);
BEGIN
    -- Whose account each is, in the order of the arrays; null where there is none.
    SELECT array_agg(CASE WHEN u.op = 'create' THEN (SELECT b.aid FROM subscriber b WHERE b.subscriber_id = u.subscriber)
                          ELSE coalesce((SELECT t.aid FROM session t WHERE t.ref = u.ref),
                                        (SELECT b.aid FROM subscriber b WHERE b.subscriber_id = u.subscriber)) END)
        INTO v_aid FROM unnest(p_op, p_ref, p_subscriber) AS u (op, ref, subscriber);
    -- All accounts, in one order everywhere: two batches never wait for each other in a circle. What follows is another
    -- statement and sees what was committed before the locks were had.
    PERFORM FROM account a WHERE a.aid = ANY (v_aid) ORDER BY a.aid FOR NO KEY UPDATE;

    WITH single AS (
        -- What can be said of a request by itself; `place` counts the requests of an account.
        SELECT c.*, b.id AS bucket, b.free, coalesce(r.mine, 0) AS mine, least(c.used, coalesce(r.mine, 0)) AS from_held,
               CASE WHEN c.op = 'release' THEN 0 ELSE c.wanted END AS hold,
               CASE WHEN array_position(v_aid, c.aid) = c.n THEN 1 ELSE cardinality(array_positions(v_aid[:c.n], c.aid)) END AS place
        FROM unnest(v_aid, p_op, p_brand, p_ref, p_sequence, p_subscriber, p_key, p_stamp, p_notify, p_rating, p_unit, p_used,
                    p_wanted) WITH ORDINALITY AS c (aid, op, brand, ref, sequence, subscriber, key, stamp, notify, rating, unit,
                                                    used, wanted, n)
        -- OFFSET: a look-up a request, whatever the planner thinks of the size of the table.
        CROSS JOIN LATERAL (
            SELECT FROM account a WHERE a.aid = c.aid AND a.brand = c.brand AND a.status = 'active' OFFSET 0) a
        LEFT JOIN session s ON s.ref = c.ref AND c.op <> 'create'
        CROSS JOIN LATERAL (
            SELECT k.id, k.granted - k.used - k.held - k.lapsed AS free, k.valid_until, k.throttle FROM bucket k
            WHERE k.aid = c.aid AND k.unit = c.unit AND NOT k.spent
            ORDER BY k.priority, k.valid_until, k.id LIMIT 1) b
        CROSS JOIN LATERAL (
            SELECT max(v.amount) FILTER (WHERE v.rating = c.rating AND v.bucket = b.id) AS mine,
                   count(*) FILTER (WHERE v.rating = c.rating AND v.bucket <> b.id) AS elsewhere,
                   count(*) FILTER (WHERE v.rating <> c.rating) AS others
            FROM reservation v WHERE v.ref = c.ref) r
        WHERE c.unit IS NOT NULL AND (b.valid_until IS NULL OR b.valid_until > now()) AND b.throttle IS NULL AND r.elsewhere = 0
          AND array_position(p_ref, c.ref) = c.n AND (c.key IS NULL OR array_position(p_key, c.key) = c.n)
          -- A session that waits for credit is told of what comes back request by request.
          AND (array_position(v_aid, c.aid) = c.n
               OR NOT EXISTS (SELECT FROM session k WHERE k.aid = c.aid AND k.starved AND k.told_at IS NULL))
          AND CASE c.op
              WHEN 'create' THEN NOT EXISTS (SELECT FROM session k WHERE k.create_key = c.key AND k.brand = c.brand)
              ELSE s.brand = c.brand AND s.aid = c.aid AND s.ended_at IS NULL AND NOT s.starved
                   AND NOT EXISTS (SELECT FROM answer x WHERE x.ref = c.ref AND x.sequence = c.sequence)
                   AND CASE c.op
                       WHEN 'release' THEN r.others = 0
                       ELSE c.sequence >= coalesce((s.ratings -> c.rating::text ->> 'n')::bigint, c.sequence) END
              END
          AND CASE WHEN c.op = 'release' THEN true ELSE c.wanted > 0 END
    ), inarow AS (
        -- And after those before it: none of them is missing, all take from one bucket, and what they leave of it.
        SELECT u.*, row_number() OVER before = u.place AND first_value(u.bucket) OVER before = u.bucket AS next,
               u.free + sum(u.mine - u.used - u.hold) OVER before - (u.mine - u.used - u.hold) AS rest
        FROM single u
        WINDOW before AS (PARTITION BY u.aid ORDER BY u.n)
    ), usual AS MATERIALIZED (
        SELECT q.* FROM (
            SELECT i.*, bool_and(i.next AND greatest(i.used - i.mine, 0) <= i.rest AND i.hold <= i.rest + i.mine - i.used)
                OVER (PARTITION BY i.aid ORDER BY i.n) AS fits
            FROM inarow i) q
        WHERE q.fits
    ), charged AS (
        UPDATE bucket b SET
            used = b.used + u.used, held = b.held + u.more, spent = b.used + u.used + b.lapsed = b.granted
        FROM (SELECT t.bucket, sum(t.used)::bigint AS used, sum(t.hold - t.mine)::bigint AS more
              FROM usual t WHERE t.used > 0 OR t.hold <> t.mine GROUP BY t.bucket) u WHERE b.id = u.bucket
    ), written AS (
        INSERT INTO entry (aid, bucket, ref, sequence, rating, unit, debit, credit, amount)
        SELECT u.aid, u.bucket, u.ref, u.sequence, u.rating, u.unit, e.debit, e.credit, e.amount
        FROM usual u, LATERAL (
            VALUES ('held', 'used', u.from_held), ('available', 'used', u.used - u.from_held),
                   ('held', 'available', u.mine - u.from_held - u.hold), ('available', 'held', u.hold + u.from_held - u.mine)
        ) e (debit, credit, amount)
        WHERE e.amount > 0
    ), held AS (
        INSERT INTO reservation (ref, rating, bucket, amount)
        SELECT u.ref, u.rating, u.bucket, u.hold FROM usual u WHERE u.mine = 0 AND u.hold > 0
    ), changed AS (
        UPDATE reservation v SET amount = u.hold FROM usual u
        WHERE v.ref = u.ref AND v.rating = u.rating AND v.bucket = u.bucket AND u.mine > 0 AND u.hold > 0 AND u.hold <> u.mine
    ), gone AS (
        DELETE FROM reservation v USING usual u
        WHERE v.ref = u.ref AND v.rating = u.rating AND v.bucket = u.bucket AND u.mine > 0 AND u.hold = 0
    ), begun AS (
        INSERT INTO session (ref, aid, brand, subscriber_id, create_key, created_stamp, notify_uri, expires_at, check_at,
                             last_sequence, used, ratings)
        SELECT u.ref, u.aid, u.brand, u.subscriber, u.key, u.stamp, u.notify, v_holding, v_holding, u.sequence,
               CASE WHEN u.used > 0 THEN jsonb_build_object(u.unit, u.used) ELSE '{}' END,
               jsonb_build_object(u.rating, jsonb_build_object('n', u.sequence, 's', false, 'u', u.unit))
        FROM usual u WHERE u.op = 'create'
    ), gone_on AS (
        UPDATE session s SET
            last_sequence = greatest(s.last_sequence, u.sequence),
            notify_uri = coalesce(u.notify, s.notify_uri),
            expires_at = CASE WHEN u.op = 'release' THEN v_idle ELSE v_holding END,
            ended_at = CASE WHEN u.op = 'release' THEN now() END,
            ended_by = CASE WHEN u.op = 'release' THEN 'release' END,
            told_at = CASE WHEN u.op = 'release' THEN s.told_at END,
            used = CASE WHEN u.used > 0
                THEN s.used || jsonb_build_object(u.unit, coalesce((s.used ->> u.unit)::bigint, 0) + u.used) ELSE s.used END,
            ratings = s.ratings || jsonb_build_object(u.rating, jsonb_build_object(
                'n', u.sequence, 's', coalesce((s.ratings -> u.rating::text ->> 's')::boolean, false), 'u', u.unit))
        FROM usual u WHERE s.ref = u.ref AND u.op <> 'create'
    ), told AS MATERIALIZED (
        SELECT u.n, u.aid, u.ref, u.sequence, u.op, u.mine - u.from_held - u.hold > 0 AS freed,
            CASE WHEN u.op = 'release' THEN '' ELSE
                v_begin || u.sequence || ',"multipleUnitInformation":[{"ratingGroup":' || u.rating
                || ',"resultCode":"SUCCESS","grantedUnit":{"'
                || CASE u.unit WHEN 'octets' THEN 'totalVolume' WHEN 'seconds' THEN 'time' ELSE 'serviceSpecificUnits' END
                || '":' || u.hold || '},"validityTime":' || p_validity || ',"'
                || CASE u.unit WHEN 'octets' THEN 'volume' WHEN 'seconds' THEN 'time' ELSE 'unit' END
                || 'QuotaThreshold":' || (u.hold::numeric * p_percent / 100)::bigint || '}]}' END AS body
        FROM usual u
    ), answered AS (
        INSERT INTO answer (ref, sequence, operation, body) SELECT t.ref, t.sequence, t.op, t.body FROM told t
    )
    SELECT array_agg(t.n), array_agg(t.ref), array_agg(t.body),
           array_agg(DISTINCT t.aid) FILTER (WHERE t.freed AND EXISTS (
               SELECT FROM session k WHERE k.aid = t.aid AND k.starved AND k.told_at IS NULL))
        INTO v_done, v_refs, v_bodies, v_wake FROM told t;

    FOR i IN 1 .. coalesce(cardinality(v_wake), 0) LOOP
        PERFORM wake(v_wake[i], false);
    END LOOP;
    IF v_done IS NOT NULL THEN
        RETURN QUERY SELECT t.n, 'done', t.ref, t.body, 0::bigint, 0
            FROM unnest(v_done, v_refs, v_bodies) AS t (n, ref, body);
    END IF;
    IF coalesce(cardinality(v_done), 0) < cardinality(p_op) THEN
        RETURN QUERY
            SELECT c.n, r.*
            FROM (SELECT x.* FROM unnest(v_aid, p_op, p_brand, p_ref, p_sequence, p_subscriber, p_key, p_stamp, p_again, p_notify,
                                         p_rating, p_unit, p_used, p_wanted, p_ratings, p_units, p_useds, p_wanteds)
                       WITH ORDINALITY AS x (aid, op, brand, ref, sequence, subscriber, key, stamp, again, notify,
                                             rating, unit, used, wanted, ratings, units, useds, wanteds, n)
                  WHERE x.n <> ALL (coalesce(v_done, '{}'))
                  ORDER BY x.aid, x.n) c,
            LATERAL charge(c.op, c.brand, c.ref, c.sequence, c.subscriber, c.key, c.stamp, c.again, c.notify,
                CASE WHEN c.rating IS NULL THEN c.ratings::bigint[] ELSE ARRAY[c.rating] END,
                CASE WHEN c.rating IS NULL THEN c.units::text[] ELSE ARRAY[c.unit] END,
                CASE WHEN c.rating IS NULL THEN c.useds::bigint[] ELSE ARRAY[c.used] END,
                CASE WHEN c.rating IS NULL THEN c.wanteds::bigint[] ELSE ARRAY[c.wanted] END,
                p_validity, p_grace, p_percent, p_linger) r;
    END IF;
END $$
