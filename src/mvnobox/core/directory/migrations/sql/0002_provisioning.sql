-- What the core itself writes (imeisv, mme_host …): field name to the hexadecimal of BSON's type octet and value,
-- because JSON does not keep BSON's types. It outlives a new provisioning.
ALTER TABLE subscriber ADD COLUMN written jsonb NOT NULL DEFAULT '{}'
-- end of statement
-- Room on the page for the next sequence number.
ALTER TABLE subscriber SET (fillfactor = 80)
-- end of statement
-- When a change stream was last read: without a reader no change is logged and nobody is notified (NOTIFY makes
-- commits queue up).
CREATE TABLE watch (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    seen timestamptz NOT NULL
)
-- end of statement
CREATE TABLE change (
    -- Transactions commit in another order than they draw `seq`: a reader goes by transaction, as far as all ended.
    xid       bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    seq       bigint GENERATED ALWAYS AS IDENTITY,
    imsi      text NOT NULL,
    operation text NOT NULL CHECK (operation IN ('insert', 'update', 'delete')),
    fields    text[] NOT NULL,
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (xid, seq)
)
-- end of statement
CREATE INDEX change_at ON change (at)
-- end of statement
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
        PERFORM pg_notify('directory_subscriber', coalesce(NEW.imsi, OLD.imsi));
    END IF;
    RETURN NULL;
END $$
-- end of statement
DROP TRIGGER told ON subscriber
-- end of statement
CREATE TRIGGER told AFTER INSERT OR DELETE OR UPDATE OF sealed, document, msisdn, written ON subscriber
    FOR EACH ROW EXECUTE FUNCTION told()
-- end of statement
-- jsonb_set makes no missing parents.
CREATE FUNCTION with_path(document jsonb, path text[], value jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    FOR i IN 1 .. cardinality(path) - 1 LOOP
        IF document #> path[1:i] IS NULL THEN
            document := jsonb_set(document, path[1:i], '{}');
        END IF;
    END LOOP;
    RETURN jsonb_set(document, path, value);
END $$
-- end of statement
-- The elements of an array of at most `most` objects; one row without value for anything else.
CREATE FUNCTION objects(list jsonb, most integer) RETURNS SETOF jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF list IS NULL THEN
        RETURN;
    ELSIF jsonb_typeof(list) <> 'array' OR jsonb_array_length(list) > most THEN
        RETURN NEXT NULL;
    ELSE
        RETURN QUERY SELECT CASE jsonb_typeof(e) WHEN 'object' THEN e END FROM jsonb_array_elements(list) e;
    END IF;
END $$
-- end of statement
-- What is wrong with a document, or null. The core is shared: Open5GS stops by assertion at more slices, sessions or
-- rules than it has room for, and skips a number that is no int32 (limits: lib/proto/types.h).
CREATE FUNCTION fault(document jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = directory, pg_temp AS $$
DECLARE
    slice jsonb;
    session jsonb;
    rule jsonb;
BEGIN
    IF jsonb_typeof(document) IS DISTINCT FROM 'object'
        OR document ?| ARRAY['security', 'imsi', 'msisdn', '_id'] THEN
        RETURN 'it must be an object without security, imsi, msisdn and _id';
    ELSIF length(document::text) > 32768 THEN
        RETURN 'it has more than 32768 characters';
    ELSIF EXISTS (SELECT FROM jsonb_object_keys(document) k WHERE k <> ALL (ARRAY['schema_version', 'ambr', 'slice',
            'access_restriction_data', 'subscriber_status', 'operator_determined_barring', 'network_access_mode',
            'subscribed_rau_tau_timer'])) THEN
        RETURN 'it has a field that is not of Open5GS''s subscriber document';
    ELSIF EXISTS (SELECT FROM jsonb_each(document) WHERE jsonb_typeof(value)
            <> CASE key WHEN 'ambr' THEN 'object' WHEN 'slice' THEN 'array' ELSE 'number' END) THEN
        RETURN 'a field has the wrong type: ambr is an object, slice an array, the rest are numbers';
    ELSIF jsonb_path_exists(document, '$.**{12}') THEN
        RETURN 'it is nested more than 11 deep';
    ELSIF jsonb_path_exists(document, 'strict $.** ? (@.type() == "number")
            ? (@ > 2147483647 || @ < -2147483648 || @ != @.floor())') THEN
        RETURN 'a number is not a 32-bit integer';
    END IF;
    FOR slice IN SELECT objects(document -> 'slice', 8) LOOP
        IF slice IS NULL THEN
            RETURN 'slice is an array of at most 8 objects';
        ELSIF jsonb_typeof(slice -> 'sst') IS DISTINCT FROM 'number' OR (slice ->> 'sst')::integer NOT BETWEEN 1 AND 255 THEN
            RETURN 'a slice needs sst, a number from 1 to 255';
        ELSIF slice ? 'sd' AND (slice ->> 'sd' !~ '^[0-9a-fA-F]{6}$' OR jsonb_typeof(slice -> 'sd') <> 'string') THEN
            RETURN 'sd is 6 hexadecimal digits';
        END IF;
        FOR session IN SELECT objects(slice -> 'session', 4) LOOP
            IF session IS NULL THEN
                RETURN 'session is an array of at most 4 objects';
            ELSIF jsonb_typeof(session -> 'name') IS DISTINCT FROM 'string'
                OR session ->> 'name' !~ '^[A-Za-z0-9._-]{1,100}$' THEN
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
    RETURN NULL;
END $$
-- end of statement
-- The document itself, or an error (22023) that says what is wrong.
CREATE FUNCTION checked(document jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE SET search_path = directory, pg_temp AS $$
DECLARE
    wrong text := fault(document);
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the subscriber document is wrong: %', wrong USING ERRCODE = '22023';
    END IF;
    RETURN document;
END $$
-- end of statement
-- Whether an IMSI exists; locks it. Another brand's: 42501.
CREATE FUNCTION owned(p_imsi text, brand text) RETURNS boolean
LANGUAGE plpgsql SET search_path = directory, pg_temp AS $$
DECLARE
    held text;
BEGIN
    SELECT owner INTO held FROM subscriber WHERE imsi = p_imsi FOR UPDATE;
    IF FOUND AND held <> brand THEN
        RAISE EXCEPTION 'IMSI % belongs to another brand', p_imsi USING ERRCODE = '42501';
    END IF;
    RETURN FOUND;
END $$
-- end of statement
CREATE OR REPLACE FUNCTION put_subscriber(p_imsi text, p_msisdn text[], p_sealed bytea, p_document jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
DECLARE
    brand text := caller();
    numbers text[] := ARRAY(SELECT DISTINCT n FROM unnest(p_msisdn) n ORDER BY n);
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
        WHERE NOT EXISTS (SELECT FROM number x WHERE x.msisdn = n AND x.imsi = p_imsi);
END $$
-- end of statement
CREATE OR REPLACE FUNCTION set_subscriber_status(p_imsi text, p_status integer, p_barring integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
BEGIN
    IF p_status IS NULL OR p_barring IS NULL THEN
        RAISE EXCEPTION 'status and barring must not be null' USING ERRCODE = '22004';
    END IF;
    IF NOT owned(p_imsi, caller()) THEN
        RETURN false;
    END IF;
    UPDATE subscriber SET updated_at = now(), document = document
        || jsonb_build_object('subscriber_status', p_status, 'operator_determined_barring', p_barring)
        WHERE imsi = p_imsi;
    RETURN true;
END $$
-- end of statement
CREATE OR REPLACE FUNCTION remove_subscriber(p_imsi text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
BEGIN
    IF NOT owned(p_imsi, caller()) THEN
        RETURN false;
    END IF;
    DELETE FROM subscriber WHERE imsi = p_imsi;
    RETURN true;
END $$
-- end of statement
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA directory FROM PUBLIC
