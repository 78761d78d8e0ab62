-- One charging request (Nchf create, update or release) in one transaction. Rating groups come as parallel arrays:
-- group, unit (null: the group is not rated), used, wanted (null: no quota asked). Outcomes: done, late, repeated,
-- unknown (no such subscriber or session), mismatch (the sequence number was used for another operation).
CREATE OR REPLACE FUNCTION charge(
    p_op text, p_brand text, p_ref uuid, p_sequence bigint, p_subscriber text, p_key uuid, p_stamp timestamptz,
    p_again boolean, p_notify text, p_ratings bigint[], p_units text[], p_used bigint[], p_wanted bigint[],
    p_validity integer, p_grace integer, p_percent integer, p_linger integer,
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
    v_back bigint;
    v_items text := '';
    v_fields text;
    v_holds boolean := false;
    v_asked boolean := false;
    v_freed boolean := false;
BEGIN
    o_overrun := 0;
    o_denied := 0;
    IF p_op = 'create' THEN
        SELECT c.aid, c.status INTO a FROM subscriber b JOIN account c USING (aid)
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
        SELECT c.aid, c.status INTO a FROM session t JOIN account c USING (aid)
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
        ELSIF v_want IS NOT NULL AND a.status <> 'active' THEN
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
        FOR pass IN 1 .. 2 LOOP
            EXIT WHEN v_rest = 0;
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
        IF v_rest > 0 THEN
            INSERT INTO entry (aid, ref, sequence, rating, unit, debit, credit, amount)
                VALUES (a.aid, s.ref, p_sequence, p_ratings[i], v_unit, 'overrun', 'used', v_rest);
            o_overrun := o_overrun + v_rest;
        END IF;
        -- The rest of the old reservation and the new one meet bucket by bucket: only the difference is written.
        FOR j IN 1 .. coalesce(cardinality(v_ids), 0) LOOP
            IF v_late THEN
                v_hold[j] := v_mine[j] - v_from_held[j];
            ELSIF v_want IS NOT NULL AND v_usable[j] THEN
                v_take := least(v_want - v_got, v_free[j] - v_from_free[j] + v_mine[j] - v_from_held[j]);
                -- One quota has one pace: what is left at full speed first, then what is slowed.
                IF v_got > 0 AND v_throttles[j] IS DISTINCT FROM v_throttle THEN
                    v_more := v_more OR v_take > 0;
                ELSIF v_take > 0 THEN
                    v_hold[j] := v_take;
                    v_got := v_got + v_take;
                    v_throttle := v_throttles[j];
                END IF;
            END IF;
            v_back := v_mine[j] - v_from_held[j] - v_hold[j];
            v_freed := v_freed OR (v_back > 0 AND v_usable[j]);
            IF v_from_held[j] > 0 OR v_from_free[j] > 0 OR v_back <> 0 THEN
                UPDATE bucket SET
                    used = used + v_from_held[j] + v_from_free[j],
                    held = held - v_mine[j] + v_hold[j],
                    spent = used + v_from_held[j] + v_from_free[j] + lapsed = granted
                    WHERE id = v_ids[j];
                INSERT INTO entry (aid, bucket, ref, sequence, rating, unit, debit, credit, amount)
                    SELECT a.aid, v_ids[j], s.ref, p_sequence, p_ratings[i], v_unit, e.debit, e.credit, e.amount
                    FROM (VALUES ('held', 'used', v_from_held[j]), ('available', 'used', v_from_free[j]),
                                 ('held', 'available', v_back), ('available', 'held', -v_back)) e (debit, credit, amount)
                    WHERE e.amount > 0;
                IF v_mine[j] = 0 AND v_hold[j] > 0 THEN
                    INSERT INTO reservation (ref, rating, bucket, amount) VALUES (s.ref, p_ratings[i], v_ids[j], v_hold[j]);
                ELSIF v_hold[j] = 0 AND v_mine[j] > 0 THEN
                    DELETE FROM reservation WHERE ref = s.ref AND rating = p_ratings[i] AND bucket = v_ids[j];
                ELSIF v_hold[j] <> v_mine[j] THEN
                    UPDATE reservation SET amount = v_hold[j]
                        WHERE ref = s.ref AND rating = p_ratings[i] AND bucket = v_ids[j];
                END IF;
            END IF;
        END LOOP;

        IF v_want IS NULL THEN
            v_items := v_items || v_code || '"}';
        ELSIF v_got = 0 THEN
            v_starves := true;
            o_denied := o_denied + 1;
            v_items := v_items || 'QUOTA_LIMIT_REACHED"}';
        ELSE
            v_starves := false;
            v_holds := true;
            v_fields := CASE v_unit WHEN 'octets' THEN 'totalVolume' WHEN 'seconds' THEN 'time' ELSE 'serviceSpecificUnits' END;
            v_items := v_items || 'SUCCESS","grantedUnit":{"' || v_fields || '":' || v_got || '},"validityTime":' || p_validity
                || ',"' || CASE v_unit WHEN 'octets' THEN 'volume' WHEN 'seconds' THEN 'time' ELSE 'unit' END
                || 'QuotaThreshold":' || (v_got::numeric * p_percent / 100)::bigint
                || CASE WHEN v_throttle IS NOT NULL
                        THEN ',"finalUnitIndication":{"finalUnitAction":"RESTRICT_ACCESS","filterIdList":["throttle;' || v_throttle || '"]}}'
                    WHEN v_got < v_want AND NOT v_more THEN ',"finalUnitIndication":{"finalUnitAction":"TERMINATE"}}' ELSE '}' END;
        END IF;
        IF NOT v_late THEN
            s.ratings := s.ratings || jsonb_build_object(v_group, jsonb_build_object('n', p_sequence, 's', v_starves, 'u', v_unit));
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
                             last_sequence, starved, used, denied, ratings)
            VALUES (s.ref, a.aid, p_brand, p_subscriber, p_key, p_stamp, p_notify, s.expires_at, s.expires_at,
                    p_sequence, s.starved, s.used, o_denied, s.ratings);
    ELSE
        UPDATE session SET
            last_sequence = greatest(last_sequence, p_sequence), notify_uri = coalesce(p_notify, notify_uri),
            expires_at = s.expires_at, check_at = s.check_at, ended_at = s.ended_at, ended_by = s.ended_by,
            starved = s.starved, told_at = s.told_at, used = s.used, denied = denied + o_denied, ratings = s.ratings
            WHERE ref = s.ref;
    END IF;
    -- What was given back may be what another session, or another rating group of this one, waits for.
    IF v_freed AND a.status = 'active' THEN
        IF EXISTS (SELECT FROM session t WHERE t.aid = a.aid AND t.starved AND t.told_at IS NULL) THEN
            PERFORM wake(a.aid, false);
        END IF;
    END IF;
END $$
