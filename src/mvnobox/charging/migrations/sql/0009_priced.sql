-- A credit line: money that the account does not have and may use, last of all. What is used of it is owed.
ALTER TABLE bucket ADD COLUMN credit boolean NOT NULL DEFAULT false CHECK (NOT credit OR unit = 'minor' AND throttle IS NULL)
-- end of statement
--   credit → available   a credit line was granted
ALTER TABLE entry
    DROP CONSTRAINT entry_debit_check,
    ADD CONSTRAINT entry_debit_check
        CHECK (debit IN ('source', 'credit', 'available', 'held', 'overrun', 'free', 'priced'))
-- end of statement
-- What sessions were charged for priced use before.
UPDATE session s SET ratings = (
    SELECT jsonb_object_agg(g.key, g.value || coalesce(
        (SELECT jsonb_build_object('t', jsonb_build_object('u', sum(e.amount) FILTER (WHERE e.debit = 'priced'),
                                                           'c', coalesce(sum(e.amount) FILTER (WHERE e.unit = 'minor'), 0)))
         FROM entry e WHERE e.aid = s.aid AND e.ref = s.ref AND e.rating = g.key::bigint AND e.credit = 'used'
         HAVING bool_or(e.debit = 'priced')), '{}'))
    FROM jsonb_each(s.ratings) g)
    WHERE EXISTS (SELECT FROM entry e WHERE e.aid = s.aid AND e.ref = s.ref AND e.debit = 'priced' AND e.bucket IS NULL)
-- end of statement
-- More of something for an account: [{unit, amount, validUntil, priority, source, throttle, credit}]. Null: no
-- such account.
-- `p_rollover` {unit, source, endedAt, limit, validUntil, priority}: what that source's buckets of this end have left lives
-- on in one more bucket, at most so much that with earlier ones it is `limit`; in them it lapses, in the same transaction.
CREATE OR REPLACE FUNCTION grant_buckets(p_brand text, p_account text, p_request uuid, p_digest text, p_buckets jsonb,
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
             AS x(unit text, amount bigint, "validUntil" timestamptz, priority integer, source text, throttle text,
                  credit boolean) LOOP
        INSERT INTO bucket (aid, unit, granted, priority, valid_until, source, throttle, credit)
            VALUES (a.aid, g.unit, g.amount, g.priority, g."validUntil", g.source, g.throttle, coalesce(g.credit, false))
            RETURNING id INTO b;
        INSERT INTO entry (aid, bucket, unit, debit, credit, amount)
            VALUES (a.aid, b, g.unit, CASE WHEN g.credit THEN 'credit' ELSE 'source' END, 'available', g.amount);
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
-- end of statement
-- One charging request (Nchf create, update or release) in one transaction. Rating groups come as parallel arrays:
-- group, unit (null: the group is not rated), used, wanted (null: no quota asked). Outcomes: done, late, repeated,
-- unknown (no such subscriber or session), mismatch (the sequence number was used for another operation), taken (a create
-- whose reference, which Diameter computes from the Session-Id, is another session's already).
--
-- `p_scene` `[*?]|zone|destination|hours|seconds`: where the subscriber is, whom it calls, when, and how long these hours
-- last; an empty zone or destination is the session's. Null: the brand has no rating. The account's tariff says by them
-- who pays: nobody, the allowances, or, beyond them, the balance. What was granted is charged on the terms of the grant.
-- They stand in the session, a rating group: "p" {price, per, step, minimum, setup, rounding, free, included; "u": units
-- that were priced, "c": what they cost, "q": units of the quota that money is held for}; and beside it, over all terms that
-- the group had, "t" {"u": units that were priced, "c": what was charged for them}: once it is there, the setup is paid.
CREATE OR REPLACE FUNCTION charge(
    p_op text, p_brand text, p_ref uuid, p_sequence bigint, p_subscriber text, p_key uuid, p_stamp timestamptz,
    p_again boolean, p_notify text, p_ratings bigint[], p_units text[], p_used bigint[], p_wanted bigint[],
    p_validity integer, p_grace integer, p_percent integer, p_linger integer, p_scene text DEFAULT NULL,
    OUT o_outcome text, OUT o_ref uuid, OUT o_body text, OUT o_overrun bigint, OUT o_denied integer
) LANGUAGE plpgsql AS $$
DECLARE
    a record;
    s session%ROWTYPE;
    x record;
    v_unit text;
    v_group text;
    v_late boolean;
    v_want bigint;
    v_got bigint;
    v_rest bigint;
    v_code text;
    v_starves boolean;
    v_ids bigint[];
    v_free bigint[];
    v_mine bigint[];
    v_usable boolean[];
    v_throttles text[];
    v_throttle text;
    v_more boolean;
    v_from_held bigint[];
    v_from_free bigint[];
    v_hold bigint[];
    v_take bigint;
    v_items text := '';
    v_fields text;
    v_holds boolean := false;
    v_asked boolean := false;
    v_freed boolean := false;
    v_rule record;
    v_allow bigint;
    v_leg jsonb;
    v_sum jsonb;
    v_next jsonb;
    v_free_use bigint;
    v_priced bigint;
    v_cost bigint;
    v_budget bigint;
    v_valid integer := p_validity;
    v_band text := split_part(p_scene, '|', 4);
    v_money_ids bigint[];
    v_money_free bigint[];
    v_money_mine bigint[];
    v_money_usable boolean[];
    v_money_from_held bigint[];
    v_money_from_free bigint[];
    v_money_hold bigint[];
    v_touched boolean;
    v_low bigint;
    v_before bigint;
BEGIN
    o_overrun := 0;
    o_denied := 0;
    IF p_op = 'create' THEN
        SELECT c.aid, c.status, c.tariff, c.account_id INTO a FROM subscriber b JOIN account c USING (aid)
            WHERE b.subscriber_id = p_subscriber AND c.brand = p_brand FOR NO KEY UPDATE OF c;
        IF NOT FOUND THEN
            o_outcome := 'unknown';
            RETURN;
        END IF;
        SELECT * INTO s FROM session WHERE brand = p_brand AND create_key = p_key;
        IF FOUND THEN
            -- The same key again is a repeat, unless its time stamp is later and the session has gone on since: then
            -- the consumer has started a new session under a charging id that it used before.
            IF p_again OR p_stamp <= s.created_stamp OR (s.ended_at IS NULL AND s.last_sequence = p_sequence) THEN
                SELECT 'repeated', s.ref, body INTO o_outcome, o_ref, o_body FROM answer WHERE ref = s.ref AND sequence = p_sequence;
                IF FOUND THEN
                    RETURN;
                END IF;
            END IF;
        END IF;
        -- A reference stands for one session for ever, also when its answers are forgotten.
        IF EXISTS (SELECT FROM session t WHERE t.ref = p_ref) THEN
            o_ref := p_ref;
            o_outcome := 'taken';
            RETURN;
        END IF;
        IF s.ref IS NOT NULL THEN
            IF s.ended_at IS NULL AND s.aid = a.aid THEN
                v_freed := give_back(s.ref, NULL);
                UPDATE session SET create_key = gen_random_uuid(), ended_at = now(), ended_by = 'superseded', starved = false
                    WHERE ref = s.ref;
            ELSE
                UPDATE session SET create_key = gen_random_uuid() WHERE ref = s.ref;
            END IF;
        END IF;
        s := NULL;
        s.ref := p_ref;
        s.aid := a.aid;
        s.used := '{}';
        s.ratings := '{}';
        s.starved := false;
        s.denied := 0;
        s.last_sequence := p_sequence;
    ELSE
        SELECT c.aid, c.status, c.tariff, c.account_id INTO a FROM session t JOIN account c USING (aid)
            WHERE t.ref = p_ref AND t.brand = p_brand AND NOT t.purged FOR NO KEY UPDATE OF c;
        IF NOT FOUND THEN
            o_outcome := 'unknown';
            RETURN;
        END IF;
        -- After the lock: a twin of this request may just have been answered.
        SELECT t AS session, r.operation, r.body INTO x
            FROM session t LEFT JOIN answer r ON r.ref = t.ref AND r.sequence = p_sequence WHERE t.ref = p_ref;
        IF x.operation IS NOT NULL THEN
            o_ref := p_ref;
            o_outcome := CASE WHEN x.operation = p_op THEN 'repeated' ELSE 'mismatch' END;
            o_body := x.body;
            RETURN;
        END IF;
        s := x.session;
    END IF;
    o_ref := s.ref;
    o_outcome := 'done';
    IF p_scene IS NOT NULL THEN
        s.zone := coalesce(nullif(split_part(p_scene, '|', 2), ''), s.zone);
        s.destination := coalesce(nullif(split_part(p_scene, '|', 3), ''), s.destination);
        IF a.tariff IS NOT NULL THEN
            -- Other hours, other terms: the quota is asked for again when they begin.
            v_valid := least(v_valid, nullif(split_part(p_scene, '|', 5), '')::integer);
        END IF;
    END IF;

    FOR i IN 1 .. coalesce(cardinality(p_ratings), 0) LOOP
        v_unit := p_units[i];
        v_group := p_ratings[i]::text;
        v_items := v_items || CASE WHEN i > 1 THEN ',' ELSE '' END || '{"ratingGroup":' || v_group || ',"resultCode":"';
        IF v_unit IS NULL THEN
            v_items := v_items || 'RATING_FAILED"}';
            CONTINUE;
        END IF;
        v_late := p_op <> 'release' AND p_sequence < coalesce((s.ratings -> v_group ->> 'n')::bigint, p_sequence);
        v_rest := p_used[i];
        -- On which terms: the grant's for what was used, the tariff's of here and now for what is granted.
        v_next := NULL;
        IF s.destination = 'emergency' THEN
            v_next := '{"free": true}';
        ELSIF a.tariff IS NOT NULL AND p_scene IS NOT NULL THEN
            SELECT * INTO v_rule FROM rating_rule r
                WHERE r.brand = p_brand AND r.tariff = a.tariff AND r.unit = v_unit
                    AND (r.zones IS NULL OR coalesce(s.zone, 'home') = ANY (r.zones))
                    AND (r.destinations IS NULL OR coalesce(s.destination, 'other') = ANY (r.destinations))
                    AND (r.bands IS NULL OR v_band = ANY (r.bands))
                ORDER BY r.n LIMIT 1;
            IF FOUND AND (v_rule.free OR NOT v_rule.included OR v_rule.price IS NOT NULL) THEN
                v_next := jsonb_build_object('free', v_rule.free, 'included', v_rule.included, 'price', v_rule.price,
                    'per', v_rule.per, 'step', v_rule.step, 'minimum', v_rule.minimum, 'setup', v_rule.setup,
                    'rounding', v_rule.rounding);
            END IF;
        END IF;
        v_sum := s.ratings -> v_group -> 't';
        IF v_sum IS NOT NULL AND v_next ->> 'price' IS NOT NULL THEN
            v_next := v_next || '{"setup": 0}';
        END IF;
        v_leg := coalesce(s.ratings -> v_group -> 'p', v_next);
        v_free_use := 0;
        v_priced := 0;
        v_touched := v_leg ->> 'price' IS NOT NULL OR v_next ->> 'price' IS NOT NULL;
        v_want := CASE WHEN p_op <> 'release' THEN p_wanted[i] END;
        v_code := 'SUCCESS';
        v_got := 0;
        v_throttle := NULL;
        v_more := false;
        v_starves := coalesce((s.ratings -> v_group ->> 's')::boolean, false);
        IF v_late THEN
            -- A request that was overtaken: its use counts, the quota is the newer request's affair.
            v_want := NULL;
            o_outcome := 'late';
        ELSIF v_want IS NOT NULL AND (s.ended_by = 'release' OR s.ended_by = 'superseded') THEN
            v_want := NULL;
            v_code := 'END_USER_SERVICE_DENIED';
        ELSIF v_want IS NOT NULL AND a.status <> 'active' AND s.destination IS DISTINCT FROM 'emergency' THEN
            v_want := NULL;
            v_code := 'END_USER_SERVICE_DENIED';
            v_starves := true;
            v_asked := true;
            o_denied := o_denied + 1;
        ELSIF v_want IS NOT NULL THEN
            v_asked := true;
        END IF;

        SELECT array_agg(t.id), array_agg(t.free), array_agg(t.mine), array_agg(t.usable), array_agg(t.throttle)
            INTO v_ids, v_free, v_mine, v_usable, v_throttles
            FROM (SELECT b.id, b.granted - b.used - b.held - b.lapsed AS free, coalesce(r.amount, 0) AS mine,
                         b.valid_until IS NULL OR b.valid_until > now() AS usable, b.throttle
                  FROM bucket b LEFT JOIN reservation r ON r.bucket = b.id AND r.ref = s.ref AND r.rating = p_ratings[i]
                  WHERE b.aid = a.aid AND b.unit = v_unit AND NOT b.spent
                  ORDER BY b.priority, b.valid_until NULLS LAST, b.id) t;
        IF v_rest > 0 THEN
            s.used := s.used || jsonb_build_object(v_unit, coalesce((s.used ->> v_unit)::bigint, 0) + v_rest);
        END IF;
        v_from_held := array_fill(0::bigint, ARRAY[coalesce(cardinality(v_ids), 0)]);
        v_from_free := v_from_held;
        v_hold := v_from_held;
        -- What was used: out of what is held for it, then out of what is free; late use the other way round, because
        -- what is held now was promised to the newer request.
        IF (v_leg -> 'free')::boolean THEN
            v_free_use := v_rest;
            v_rest := 0;
        END IF;
        FOR pass IN 1 .. 2 LOOP
            EXIT WHEN v_rest = 0;
            IF pass = 2 AND v_leg ->> 'price' IS NOT NULL AND NOT v_late THEN
                -- What money is held for comes before what would be free again.
                v_priced := least(v_rest, coalesce((v_leg ->> 'q')::bigint, 0));
                v_rest := v_rest - v_priced;
            END IF;
            -- Without its tariff's leave no allowance is touched that was not promised.
            CONTINUE WHEN (pass = 1) = v_late AND NOT coalesce((v_leg -> 'included')::boolean, true);
            FOR j IN 1 .. coalesce(cardinality(v_ids), 0) LOOP
                EXIT WHEN v_rest = 0;
                IF (pass = 1) <> v_late THEN
                    v_take := least(v_rest, v_mine[j]);
                    v_from_held[j] := v_take;
                ELSE
                    CONTINUE WHEN NOT v_usable[j];
                    v_take := least(v_rest, v_free[j]);
                    v_from_free[j] := v_take;
                END IF;
                v_rest := v_rest - v_take;
            END LOOP;
        END LOOP;
        IF v_leg ->> 'price' IS NOT NULL THEN
            v_priced := v_priced + v_rest;
            v_rest := 0;
        END IF;
        INSERT INTO entry (aid, ref, sequence, rating, unit, debit, credit, amount)
            SELECT a.aid, s.ref, p_sequence, p_ratings[i], v_unit, e.debit, 'used', e.amount
            FROM (VALUES ('free', v_free_use), ('priced', v_priced), ('overrun', v_rest)) e (debit, amount) WHERE e.amount > 0;
        o_overrun := o_overrun + v_rest;
        -- The rest of the old reservation and the new one meet bucket by bucket.
        v_allow := CASE WHEN (v_next -> 'free')::boolean OR NOT (v_next -> 'included')::boolean THEN 0 ELSE v_want END;
        FOR j IN 1 .. coalesce(cardinality(v_ids), 0) LOOP
            IF v_late THEN
                v_hold[j] := v_mine[j] - v_from_held[j];
            ELSIF v_want IS NOT NULL AND v_usable[j] THEN
                v_take := least(v_allow - v_got, v_free[j] - v_from_free[j] + v_mine[j] - v_from_held[j]);
                -- One quota has one pace: what is left at full speed first, then what is slowed.
                IF v_got > 0 AND v_throttles[j] IS DISTINCT FROM v_throttle THEN
                    v_more := v_more OR v_take > 0;
                ELSIF v_take > 0 THEN
                    v_hold[j] := v_take;
                    v_got := v_got + v_take;
                    v_throttle := v_throttles[j];
                END IF;
            END IF;
        END LOOP;
        v_freed := settle(a.aid, s.ref, p_sequence, p_ratings[i], v_unit, v_ids, v_usable, v_mine, v_from_held, v_from_free,
                          v_hold) OR v_freed;
        IF v_want IS NOT NULL AND (v_next -> 'free')::boolean THEN
            v_got := v_want;
        END IF;

        IF v_touched THEN
            SELECT array_agg(t.id), array_agg(t.free), array_agg(t.mine), array_agg(t.usable),
                   sum(CASE WHEN t.usable THEN t.free + t.held ELSE 0 END)
                INTO v_money_ids, v_money_free, v_money_mine, v_money_usable, v_before
                FROM (SELECT b.id, b.granted - b.used - b.held - b.lapsed AS free, b.held, coalesce(r.amount, 0) AS mine,
                             b.valid_until IS NULL OR b.valid_until > now() AS usable
                      FROM bucket b LEFT JOIN reservation r ON r.bucket = b.id AND r.ref = s.ref AND r.rating = p_ratings[i]
                      WHERE b.aid = a.aid AND b.unit = 'minor' AND NOT b.spent
                      ORDER BY b.priority, b.valid_until NULLS LAST, b.id) t;
            v_money_from_held := array_fill(0::bigint, ARRAY[coalesce(cardinality(v_money_ids), 0)]);
            v_money_from_free := v_money_from_held;
            v_money_hold := v_money_from_held;
            v_cost := 0;
            IF v_priced > 0 THEN
                -- Of all that this session had on these terms, less what was paid: reports in between never round twice.
                v_cost := rate_cost(coalesce((v_leg ->> 'u')::bigint, 0) + v_priced, v_leg);
                v_leg := v_leg || jsonb_build_object('u', coalesce((v_leg ->> 'u')::bigint, 0) + v_priced, 'c', v_cost);
                v_cost := v_cost - coalesce((s.ratings -> v_group -> 'p' ->> 'c')::bigint, 0);
                v_sum := jsonb_build_object('u', coalesce((v_sum ->> 'u')::bigint, 0) + v_priced,
                                            'c', coalesce((v_sum ->> 'c')::bigint, 0) + v_cost);
                v_rest := v_cost;
                FOR pass IN 1 .. 2 LOOP
                    FOR j IN 1 .. coalesce(cardinality(v_money_ids), 0) LOOP
                        EXIT WHEN v_rest = 0;
                        IF (pass = 1) <> v_late THEN
                            v_take := least(v_rest, v_money_mine[j]);
                            v_money_from_held[j] := v_take;
                        ELSE
                            CONTINUE WHEN NOT v_money_usable[j];
                            v_take := least(v_rest, v_money_free[j]);
                            v_money_from_free[j] := v_take;
                        END IF;
                        v_rest := v_rest - v_take;
                    END LOOP;
                END LOOP;
                IF v_rest > 0 THEN
                    INSERT INTO entry (aid, ref, sequence, rating, unit, debit, credit, amount)
                        VALUES (a.aid, s.ref, p_sequence, p_ratings[i], 'minor', 'overrun', 'used', v_rest);
                    o_overrun := o_overrun + v_rest;
                END IF;
                IF v_cost > 0 THEN
                    s.used := s.used || jsonb_build_object('minor', coalesce((s.used ->> 'minor')::bigint, 0) + v_cost);
                END IF;
            END IF;
            v_priced := 0;
            IF NOT v_late AND v_want IS NOT NULL THEN
                -- On the same terms the count goes on; on others it begins anew, but for what came once a session.
                IF v_leg - '{u,c,q}'::text[] IS NOT DISTINCT FROM v_next
                   OR (v_leg - '{u,c,q,setup}'::text[] IS NOT DISTINCT FROM v_next - 'setup' AND v_leg ? 'u') THEN
                    v_next := v_leg;
                ELSIF v_sum IS NOT NULL AND v_next ->> 'price' IS NOT NULL THEN
                    v_next := v_next || '{"setup": 0}';
                END IF;
                IF v_next ->> 'price' IS NOT NULL AND v_got < v_want AND v_throttle IS NULL AND NOT v_more THEN
                    SELECT sum(f - ff + m - fh) INTO v_budget
                        FROM unnest(v_money_free, v_money_from_free, v_money_mine, v_money_from_held, v_money_usable) AS t (f, ff, m, fh, usable)
                        WHERE t.usable;
                    v_priced := greatest(least(v_want - v_got, rate_units(
                        coalesce(v_budget, 0) + coalesce((v_next ->> 'c')::bigint, 0), v_next) - coalesce((v_next ->> 'u')::bigint, 0)), 0);
                    IF v_priced > 0 THEN
                        v_rest := rate_cost(coalesce((v_next ->> 'u')::bigint, 0) + v_priced, v_next) - coalesce((v_next ->> 'c')::bigint, 0);
                        v_got := v_got + v_priced;
                        FOR j IN 1 .. coalesce(cardinality(v_money_ids), 0) LOOP
                            EXIT WHEN v_rest <= 0;
                            CONTINUE WHEN NOT v_money_usable[j];
                            v_money_hold[j] := least(v_rest, v_money_free[j] - v_money_from_free[j] + v_money_mine[j] - v_money_from_held[j]);
                            v_rest := v_rest - v_money_hold[j];
                        END LOOP;
                    END IF;
                END IF;
            ELSIF v_late THEN
                FOR j IN 1 .. coalesce(cardinality(v_money_ids), 0) LOOP
                    v_money_hold[j] := v_money_mine[j] - v_money_from_held[j];
                END LOOP;
            END IF;
            v_freed := settle(a.aid, s.ref, p_sequence, p_ratings[i], 'minor', v_money_ids, v_money_usable, v_money_mine,
                              v_money_from_held, v_money_from_free, v_money_hold) OR v_freed;
            IF v_cost > 0 THEN
                SELECT low_balance INTO v_low FROM rating WHERE brand = p_brand;
                IF v_before >= v_low AND v_before - v_cost < v_low THEN
                    INSERT INTO account_event (brand, account_id, type, body) VALUES (p_brand, a.account_id, 'balance.low',
                        jsonb_build_object('unit', 'minor', 'available', greatest(v_before - v_cost, 0), 'threshold', v_low));
                END IF;
            END IF;
        END IF;
        IF v_late OR v_want IS NULL THEN
            v_next := v_leg;
        END IF;
        IF v_next IS NOT NULL AND NOT v_late THEN
            v_next := v_next || jsonb_build_object('q', v_priced);
        END IF;

        IF v_want IS NULL THEN
            v_items := v_items || v_code || '"}';
        ELSIF v_got = 0 AND NOT (v_next -> 'included')::boolean AND v_next ->> 'price' IS NULL THEN
            -- Not sold here: more credit would not help.
            v_starves := false;
            o_denied := o_denied + 1;
            v_items := v_items || 'END_USER_SERVICE_DENIED"}';
        ELSIF v_got = 0 THEN
            v_starves := true;
            o_denied := o_denied + 1;
            v_items := v_items || 'QUOTA_LIMIT_REACHED"}';
        ELSE
            v_starves := false;
            v_holds := true;
            v_fields := CASE v_unit WHEN 'octets' THEN 'totalVolume' WHEN 'seconds' THEN 'time' ELSE 'serviceSpecificUnits' END;
            v_items := v_items || 'SUCCESS","grantedUnit":{"' || v_fields || '":' || v_got || '},"validityTime":' || v_valid
                || ',"' || CASE v_unit WHEN 'octets' THEN 'volume' WHEN 'seconds' THEN 'time' ELSE 'unit' END
                || 'QuotaThreshold":' || (v_got::numeric * p_percent / 100)::bigint
                || CASE WHEN v_throttle IS NOT NULL
                        THEN ',"finalUnitIndication":{"finalUnitAction":"RESTRICT_ACCESS","filterIdList":["throttle;' || v_throttle || '"]}}'
                    WHEN v_got < v_want AND NOT v_more THEN ',"finalUnitIndication":{"finalUnitAction":"TERMINATE"}}' ELSE '}' END;
        END IF;
        IF NOT v_late THEN
            s.ratings := s.ratings || jsonb_build_object(v_group, jsonb_build_object('n', p_sequence, 's', v_starves, 'u', v_unit)
                || CASE WHEN v_next IS NULL THEN '{}' ELSE jsonb_build_object('p', v_next) END
                || CASE WHEN v_next ->> 'price' IS NULL THEN '{}' ELSE '{"m": true}'::jsonb END
                || CASE WHEN v_sum IS NULL THEN '{}' ELSE jsonb_build_object('t', v_sum) END);
        ELSIF v_next IS NOT NULL THEN
            s.ratings := jsonb_set(s.ratings, ARRAY[v_group, 'p'], v_next);
            IF v_sum IS NOT NULL THEN
                s.ratings := jsonb_set(s.ratings, ARRAY[v_group, 't'], v_sum);
            END IF;
        END IF;
    END LOOP;

    IF p_op = 'release' THEN
        v_freed := give_back(s.ref, p_sequence) OR v_freed;
        o_body := '';
        s.starved := false;
        s.ended_at := coalesce(s.ended_at, now());
        s.ended_by := 'release';
    ELSE
        o_body := '{"invocationTimeStamp":"' || to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
            || '","invocationSequenceNumber":' || p_sequence || ',"multipleUnitInformation":[' || v_items || ']}';
        IF s.ended_by = 'expiry' THEN
            -- The sweeper took it for dead; it is not.
            s.ended_at := NULL;
            s.ended_by := NULL;
            s.check_at := now() + make_interval(secs => p_validity + p_grace);
        END IF;
        s.starved := s.ended_at IS NULL AND jsonb_path_exists(s.ratings, '$.*.s ? (@ == true)');
        IF NOT v_holds THEN
            v_holds := EXISTS (SELECT FROM reservation WHERE ref = s.ref);
        END IF;
    END IF;
    IF v_asked THEN
        s.told_at := NULL;
    END IF;
    INSERT INTO answer (ref, sequence, operation, body) VALUES (s.ref, p_sequence, p_op, o_body);
    -- Who holds quota has to come back before it runs out; who holds none may stay quiet for long.
    s.expires_at := now() + make_interval(secs => CASE WHEN v_holds THEN p_validity + p_grace ELSE p_linger END);
    IF p_op = 'create' THEN
        INSERT INTO session (ref, aid, brand, subscriber_id, create_key, created_stamp, notify_uri, expires_at, check_at,
                             last_sequence, starved, used, denied, ratings, zone, destination)
            VALUES (s.ref, a.aid, p_brand, p_subscriber, p_key, p_stamp, p_notify, s.expires_at, s.expires_at,
                    p_sequence, s.starved, s.used, o_denied, s.ratings, s.zone, s.destination);
    ELSE
        UPDATE session SET
            last_sequence = greatest(last_sequence, p_sequence), notify_uri = coalesce(p_notify, notify_uri),
            expires_at = s.expires_at, check_at = s.check_at, ended_at = s.ended_at, ended_by = s.ended_by,
            starved = s.starved, told_at = s.told_at, used = s.used, denied = denied + o_denied, ratings = s.ratings,
            zone = s.zone, destination = s.destination
            WHERE ref = s.ref;
    END IF;
    -- What was given back may be what another session, or another rating group of this one, waits for.
    IF v_freed AND a.status = 'active' THEN
        IF EXISTS (SELECT FROM session t WHERE t.aid = a.aid AND t.starved AND t.told_at IS NULL) THEN
            PERFORM wake(a.aid, false);
        END IF;
    END IF;
END $$
-- end of statement
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
    p_validity integer, p_grace integer, p_percent integer, p_linger integer, p_scene text[] DEFAULT NULL
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
                    p_wanted, p_scene) WITH ORDINALITY AS c (aid, op, brand, ref, sequence, subscriber, key, stamp, notify,
                                                             rating, unit, used, wanted, scene, n)
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
        WHERE c.unit IS NOT NULL
          AND (c.scene IS NULL
               OR (c.scene ~ '^[|].*[|]$'
                   OR c.scene ~ '^[?].*[|]$' AND coalesce(s.zone, 'home') = 'home' AND coalesce(s.destination, 'other') = 'other')
               AND NOT coalesce(s.ratings -> c.rating::text ?| ARRAY['p', 't'], false))
          AND s.destination IS DISTINCT FROM 'emergency'
          AND (b.valid_until IS NULL OR b.valid_until > now()) AND b.throttle IS NULL AND r.elsewhere = 0
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
                             last_sequence, used, ratings, zone, destination)
        SELECT u.ref, u.aid, u.brand, u.subscriber, u.key, u.stamp, u.notify, v_holding, v_holding, u.sequence,
               CASE WHEN u.used > 0 THEN jsonb_build_object(u.unit, u.used) ELSE '{}' END,
               jsonb_build_object(u.rating, jsonb_build_object('n', u.sequence, 's', false, 'u', u.unit)),
               nullif(split_part(u.scene, '|', 2), ''), nullif(split_part(u.scene, '|', 3), '')
        FROM usual u WHERE u.op = 'create'
    ), gone_on AS (
        UPDATE session s SET
            last_sequence = greatest(s.last_sequence, u.sequence),
            notify_uri = coalesce(u.notify, s.notify_uri),
            zone = coalesce(nullif(split_part(u.scene, '|', 2), ''), s.zone),
            destination = coalesce(nullif(split_part(u.scene, '|', 3), ''), s.destination),
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
                                         p_rating, p_unit, p_used, p_wanted, p_ratings, p_units, p_useds, p_wanteds, p_scene)
                       WITH ORDINALITY AS x (aid, op, brand, ref, sequence, subscriber, key, stamp, again, notify,
                                             rating, unit, used, wanted, ratings, units, useds, wanteds, scene, n)
                  WHERE x.n <> ALL (coalesce(v_done, '{}'))
                  ORDER BY x.aid, x.n) c,
            LATERAL charge(c.op, c.brand, c.ref, c.sequence, c.subscriber, c.key, c.stamp, c.again, c.notify,
                CASE WHEN c.rating IS NULL THEN c.ratings::bigint[] ELSE ARRAY[c.rating] END,
                CASE WHEN c.rating IS NULL THEN c.units::text[] ELSE ARRAY[c.unit] END,
                CASE WHEN c.rating IS NULL THEN c.useds::bigint[] ELSE ARRAY[c.used] END,
                CASE WHEN c.rating IS NULL THEN c.wanteds::bigint[] ELSE ARRAY[c.wanted] END,
                p_validity, p_grace, p_percent, p_linger, c.scene) r;
    END IF;
END $$
-- end of statement
-- The invariants. Empty on a sound ledger.
CREATE OR REPLACE VIEW ledger_difference AS
WITH sums AS (
    SELECT bucket,
        coalesce(sum(amount) FILTER (WHERE debit IN ('source', 'credit')), 0) AS granted,
        coalesce(sum(amount) FILTER (WHERE debit = 'credit'), 0) AS credit,
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
SELECT 'bucket ' || b.id, CASE WHEN b.credit THEN 'is a credit line' ELSE 'is no credit line' END || '; entries say that ' || s.credit
       || ' of ' || s.granted || ' is credit'
FROM bucket b JOIN sums s ON s.bucket = b.id WHERE s.credit <> CASE WHEN b.credit THEN s.granted ELSE 0 END
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
UNION ALL
-- What was priced, unit by unit, and the money that was taken for it.
SELECT 'session ' || coalesce(s.ref, e.ref) || ' rating group ' || coalesce(s.rating, e.rating),
       'priced ' || concat_ws(' units for ', coalesce(s.units, 0), coalesce(s.money, 0)) || '; entries say '
       || concat_ws(' for ', coalesce(e.units, 0), coalesce(e.money, 0))
FROM (SELECT ref, key::bigint AS rating, (value -> 't' ->> 'u')::numeric AS units, (value -> 't' ->> 'c')::numeric AS money
      FROM session, jsonb_each(ratings) WHERE value ? 't') s
FULL JOIN (SELECT ref, rating, sum(amount) FILTER (WHERE debit = 'priced') AS units,
                  coalesce(sum(amount) FILTER (WHERE unit = 'minor'), 0) AS money
           FROM entry WHERE credit = 'used' AND ref IS NOT NULL GROUP BY ref, rating HAVING bool_or(debit = 'priced')) e
     ON e.ref = s.ref AND e.rating = s.rating
WHERE (s.units, s.money) IS DISTINCT FROM (e.units, e.money)
UNION ALL
SELECT 'session ' || ref || ' rating group ' || key, 'charged ' || (value -> 'p' ->> 'c') || ' for ' || (value -> 'p' ->> 'u')
       || ' units, which cost ' || rate_cost((value -> 'p' ->> 'u')::bigint, value -> 'p')
FROM session, jsonb_each(ratings)
WHERE value -> 'p' ? 'u' AND (value -> 'p' ->> 'c')::bigint <> rate_cost((value -> 'p' ->> 'u')::bigint, value -> 'p')
