-- The kind of value that Open5GS reads under a name, wherever the name stands (lib/dbi): another kind is skipped without
-- a word. Null: a name that it does not read.
CREATE FUNCTION kind(name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT '{
        "schema_version": "number", "access_restriction_data": "number", "subscriber_status": "number",
        "operator_determined_barring": "number", "network_access_mode": "number", "subscribed_rau_tau_timer": "number",
        "value": "number", "unit": "number", "sst": "number", "type": "number", "index": "number",
        "priority_level": "number", "pre_emption_capability": "number", "pre_emption_vulnerability": "number",
        "direction": "number", "priority": "number", "default_handling": "number", "condition_type_cnf": "number",
        "condition_negated": "number", "group": "number", "session_case": "number",
        "default_indicator": "boolean", "lbo_roaming_allowed": "boolean",
        "name": "string", "sd": "string", "ipv4": "string", "ipv6": "string", "description": "string",
        "server_name": "string", "method": "string", "request_uri": "string", "header": "string", "line": "string",
        "content": "string",
        "ambr": "object", "downlink": "object", "uplink": "object", "qos": "object", "arp": "object", "mbr": "object",
        "gbr": "object", "smf": "object", "ue": "object", "application_server": "object", "trigger_point": "object",
        "sip_header": "object", "sdp_line": "object",
        "slice": "array", "session": "array", "pcc_rule": "array", "flow": "array", "ifc": "array", "spt": "array",
        "ipv4_framed_routes": "array", "ipv6_framed_routes": "array"
    }'::jsonb ->> name
$$
-- end of statement
-- What is wrong with a document, or null. The core is shared: Open5GS stops by assertion at more slices, sessions, rules
-- or criteria than it has room for (limits: lib/proto/types.h), and an element that is no document is read as one.
CREATE OR REPLACE FUNCTION fault(document jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = directory, pg_temp AS $$
DECLARE
    slice jsonb;
    session jsonb;
    rule jsonb;
    wrong text;
BEGIN
    IF jsonb_typeof(document) IS DISTINCT FROM 'object'
        OR document ?| ARRAY['security', 'imsi', 'msisdn', '_id'] THEN
        RETURN 'it must be an object without security, imsi, msisdn and _id';
    ELSIF length(document::text) > 32768 THEN
        RETURN 'it has more than 32768 characters';
    ELSIF EXISTS (SELECT FROM jsonb_object_keys(document) k WHERE k <> ALL (ARRAY['schema_version', 'ambr', 'slice',
            'access_restriction_data', 'subscriber_status', 'operator_determined_barring', 'network_access_mode',
            'subscribed_rau_tau_timer', 'ifc'])) THEN
        RETURN 'it has a field that is not of Open5GS''s subscriber document';
    ELSIF jsonb_path_exists(document, '$.**{12}') THEN
        RETURN 'it is nested more than 11 deep';
    ELSIF jsonb_path_exists(document, 'strict $.** ? (@.type() == "number")
            ? (@ > 2147483647 || @ < -2147483648 || @ != @.floor())') THEN
        RETURN 'a number is not a 32-bit integer';
    END IF;
    SELECT format('%s has the wrong type: it has to be of type %s', e.key, kind(e.key)) INTO wrong
        FROM jsonb_path_query(document, 'strict $.** ? (@.type() == "object")') o, jsonb_each(o) e
        WHERE jsonb_typeof(e.value) <> kind(e.key) LIMIT 1;
    IF FOUND THEN
        RETURN wrong;
    END IF;
    FOR slice IN SELECT objects(document -> 'slice', 8) LOOP
        IF slice IS NULL THEN
            RETURN 'slice is an array of at most 8 objects';
        ELSIF NOT slice ? 'sst' OR (slice ->> 'sst')::integer NOT BETWEEN 1 AND 255 THEN
            RETURN 'a slice needs sst, a number from 1 to 255';
        ELSIF slice ? 'sd' AND slice ->> 'sd' !~ '^[0-9a-fA-F]{6}$' THEN
            RETURN 'sd is 6 hexadecimal digits';
        END IF;
        FOR session IN SELECT objects(slice -> 'session', 4) LOOP
            IF session IS NULL THEN
                RETURN 'session is an array of at most 4 objects';
            ELSIF NOT session ? 'name' OR session ->> 'name' !~ '^[A-Za-z0-9._-]{1,100}$' THEN
                RETURN 'a session needs name, a DNN of at most 100 characters';
            END IF;
            FOR rule IN SELECT objects(session -> 'pcc_rule', 8) LOOP
                IF rule IS NULL THEN
                    RETURN 'pcc_rule is an array of at most 8 objects';
                ELSIF EXISTS (SELECT FROM objects(rule -> 'flow', 15) f WHERE f IS NULL) THEN
                    RETURN 'flow is an array of at most 15 objects';
                END IF;
            END LOOP;
        END LOOP;
    END LOOP;
    FOR rule IN SELECT objects(document -> 'ifc', 20) LOOP
        IF rule IS NULL THEN
            RETURN 'ifc is an array of at most 20 objects';
        ELSIF EXISTS (SELECT FROM objects(rule #> '{trigger_point,spt}', 20) s WHERE s IS NULL) THEN
            RETURN 'spt is an array of at most 20 objects';
        END IF;
    END LOOP;
    RETURN NULL;
END $$
-- end of statement
-- A notification without a name: of one transaction's, PostgreSQL sends one.
CREATE OR REPLACE FUNCTION told() RETURNS trigger LANGUAGE plpgsql SET search_path = directory, pg_temp AS $$
DECLARE
    last_seen timestamptz := (SELECT seen FROM watch);
    changed text[] := '{}';
BEGIN
    IF last_seen IS NULL OR last_seen < clock_timestamp() - interval '1 hour' THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        changed := ARRAY(SELECT coalesce(n.key, o.key)
                         FROM jsonb_each(NEW.document || NEW.written) n
                         FULL JOIN jsonb_each(OLD.document || OLD.written) o USING (key)
                         WHERE n.value IS DISTINCT FROM o.value)
            || CASE WHEN NEW.msisdn IS DISTINCT FROM OLD.msisdn THEN ARRAY['msisdn'] ELSE '{}' END
            || CASE WHEN NEW.sealed IS DISTINCT FROM OLD.sealed THEN ARRAY['security'] ELSE '{}' END;
        IF changed = '{}' THEN
            RETURN NULL;
        END IF;
    END IF;
    INSERT INTO change (imsi, operation, fields) VALUES (coalesce(NEW.imsi, OLD.imsi), lower(TG_OP), changed);
    IF last_seen > clock_timestamp() - interval '2 minutes' THEN
        PERFORM pg_notify('directory_subscriber', '');
    END IF;
    RETURN NULL;
END $$
-- end of statement
-- Insert or replace many: the i-th IMSI with the i-th sealed keys and document. p_msisdn has one number a subscriber, or
-- two (an array of pairs), null for none. All or nothing; returns how many.
CREATE FUNCTION put_subscribers(p_imsi text[], p_msisdn text[], p_sealed bytea[], p_document jsonb[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
DECLARE
    brand text := caller();
    most constant integer := 5000;
    n integer := coalesce(array_length(p_imsi, 1), 0);
    each integer;
    foreign_imsi text;
    put integer;
BEGIN
    IF p_imsi IS NULL OR p_msisdn IS NULL OR p_sealed IS NULL OR p_document IS NULL
        OR array_position(p_imsi, NULL) IS NOT NULL OR array_position(p_sealed, NULL) IS NOT NULL
        OR array_position(p_document, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'IMSIs, sealed keys and documents must not be null' USING ERRCODE = '22004';
    ELSIF n = 0 THEN
        RETURN 0;
    ELSIF n > most THEN
        RAISE EXCEPTION '% subscribers in one call; put at most % at a time', n, most USING ERRCODE = '22023';
    ELSIF cardinality(p_imsi) <> n OR cardinality(p_sealed) <> n OR cardinality(p_document) <> n
        OR cardinality(p_msisdn) NOT IN (0, n, 2 * n) THEN
        RAISE EXCEPTION 'the arrays differ in length: % IMSIs, % numbers (one or two each), % sealed keys, % documents',
            cardinality(p_imsi), cardinality(p_msisdn), cardinality(p_sealed), cardinality(p_document)
            USING ERRCODE = '22023';
    ELSIF (SELECT count(DISTINCT i) FROM unnest(p_imsi) i) <> n THEN
        RAISE EXCEPTION 'an IMSI stands twice in one call' USING ERRCODE = '22023';
    END IF;
    each := greatest(cardinality(p_msisdn) / n, 1);
    -- A plan's document is the same for all of its subscribers: checked once.
    PERFORM checked(d) FROM (SELECT DISTINCT d FROM unnest(p_document) d) plans;
    -- In the order of the IMSIs here and below, so that two calls wait for each other instead of deadlocking.
    SELECT imsi INTO foreign_imsi
        FROM (SELECT imsi, owner FROM subscriber WHERE imsi = ANY (p_imsi) ORDER BY imsi FOR UPDATE) held
        WHERE owner <> brand LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'IMSI % belongs to another brand', foreign_imsi USING ERRCODE = '42501';
    END IF;
    INSERT INTO subscriber AS s (imsi, owner, sealed, document, msisdn)
        SELECT p.imsi, brand, p.sealed, p.document, coalesce(m.numbers, '{}')
        FROM unnest(p_imsi, p_sealed, p_document) WITH ORDINALITY p (imsi, sealed, document, i)
        LEFT JOIN (SELECT i, array_agg(number ORDER BY o) AS numbers
                   FROM (SELECT (o - 1) / each + 1 AS i, number, min(o) AS o
                         FROM unnest(p_msisdn) WITH ORDINALITY u (number, o)
                         WHERE number IS NOT NULL GROUP BY 1, 2) once GROUP BY i) m USING (i)
        ORDER BY p.imsi
        ON CONFLICT (imsi) DO UPDATE SET
            sqn = CASE WHEN s.sealed = excluded.sealed THEN s.sqn ELSE 0 END,
            sealed = excluded.sealed, document = excluded.document, msisdn = excluded.msisdn, updated_at = now()
            WHERE s.owner = brand;
    GET DIAGNOSTICS put = ROW_COUNT;
    IF put <> n THEN  -- another brand's insert of one of the IMSIs was quicker
        RAISE EXCEPTION 'an IMSI belongs to another brand' USING ERRCODE = '42501';
    END IF;
    DELETE FROM number x USING subscriber s
        WHERE x.imsi = ANY (p_imsi) AND s.imsi = x.imsi AND x.msisdn <> ALL (s.msisdn);
    INSERT INTO number (msisdn, imsi)
        SELECT number, s.imsi FROM subscriber s, unnest(s.msisdn) number
        WHERE s.imsi = ANY (p_imsi) AND NOT EXISTS (SELECT FROM number x WHERE x.msisdn = number AND x.imsi = s.imsi)
        ORDER BY number;
    RETURN put;
END $$
-- end of statement
CREATE OR REPLACE FUNCTION put_subscriber(p_imsi text, p_msisdn text[], p_sealed bytea, p_document jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
DECLARE
    brand text := caller();
    -- The first number is the subscriber's, the second an additional one (A-MSISDN): their order stays.
    numbers text[] := ARRAY(SELECT n FROM unnest(p_msisdn) WITH ORDINALITY u (n, o) GROUP BY n ORDER BY min(o));
BEGIN
    IF p_imsi IS NULL OR p_sealed IS NULL OR p_document IS NULL OR array_position(numbers, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'IMSI, numbers, sealed keys and document must not be null' USING ERRCODE = '22004';
    END IF;
    -- Open5GS's HSS and UDR stop by assertion at a third number.
    IF cardinality(numbers) > 2 THEN
        RAISE EXCEPTION 'a subscriber has at most 2 numbers' USING ERRCODE = '22023';
    END IF;
    PERFORM checked(p_document);
    PERFORM owned(p_imsi, brand);
    INSERT INTO subscriber AS s (imsi, owner, sealed, document, msisdn)
        VALUES (p_imsi, brand, p_sealed, p_document, numbers)
        ON CONFLICT (imsi) DO UPDATE SET
            -- A new key starts a new sequence; the same key goes on where it was (TS 33.102 annex C).
            sqn = CASE WHEN s.sealed = excluded.sealed THEN s.sqn ELSE 0 END,
            sealed = excluded.sealed, document = excluded.document, msisdn = excluded.msisdn, updated_at = now()
            WHERE s.owner = brand;
    IF NOT FOUND THEN  -- another brand's insert of the same IMSI was quicker
        RAISE EXCEPTION 'IMSI % belongs to another brand', p_imsi USING ERRCODE = '42501';
    END IF;
    DELETE FROM number WHERE imsi = p_imsi AND msisdn <> ALL (numbers);
    INSERT INTO number (msisdn, imsi) SELECT n, p_imsi FROM unnest(numbers) n
        WHERE NOT EXISTS (SELECT FROM number x WHERE x.msisdn = n AND x.imsi = p_imsi) ORDER BY n;
END $$
-- end of statement
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA directory FROM PUBLIC
-- end of statement
GRANT EXECUTE ON FUNCTION put_subscribers(text[], text[], bytea[], jsonb[]) TO mvno_bss
