CREATE TABLE subscriber (
    imsi       text PRIMARY KEY CHECK (imsi ~ '^[0-9]{5,15}$'),
    owner      text NOT NULL,
    -- A sealed box (X25519) of {"k", "opc", "amf"}: only the directory server can open it.
    sealed     bytea NOT NULL,
    sqn        bigint NOT NULL DEFAULT 0 CHECK (sqn >= 0),
    -- The rest of Open5GS's document, without security, imsi and msisdn.
    document   jsonb NOT NULL,
    msisdn     text[] NOT NULL DEFAULT '{}',
    updated_at timestamptz NOT NULL DEFAULT now()
)
-- end of statement
-- One row a number: unique over the whole platform, and the look-up by number is a key look-up.
CREATE TABLE number (
    msisdn text PRIMARY KEY CHECK (msisdn ~ '^[0-9]{5,15}$'),
    imsi   text NOT NULL REFERENCES subscriber ON DELETE CASCADE
)
-- end of statement
CREATE INDEX number_imsi ON number (imsi)
-- end of statement
CREATE INDEX subscriber_owner ON subscriber (owner)
-- end of statement
CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('directory_subscriber', coalesce(NEW.imsi, OLD.imsi));
    RETURN NULL;
END $$
-- end of statement
CREATE TRIGGER told AFTER INSERT OR DELETE OR UPDATE OF sealed, document, msisdn ON subscriber
    FOR EACH ROW EXECUTE FUNCTION told()
-- end of statement
-- The brand behind the role that calls, not the role that defined the function.
CREATE FUNCTION caller() RETURNS text LANGUAGE plpgsql STABLE SET search_path = directory, pg_temp AS $$
BEGIN
    IF session_user !~ '^bss_' THEN
        RAISE EXCEPTION 'only a brand''s BSS provisions subscribers' USING ERRCODE = '42501';
    END IF;
    RETURN substr(session_user, 5);
END $$
-- end of statement
CREATE FUNCTION put_subscriber(p_imsi text, p_msisdn text[], p_sealed bytea, p_document jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
DECLARE
    brand text := caller();
    held text;
BEGIN
    IF jsonb_typeof(p_document) IS DISTINCT FROM 'object' OR p_document ?| ARRAY['security', 'imsi', 'msisdn', '_id'] THEN
        RAISE EXCEPTION 'the document must be an object without security, imsi, msisdn and _id' USING ERRCODE = '22023';
    END IF;
    SELECT owner INTO held FROM subscriber WHERE imsi = p_imsi FOR UPDATE;
    IF FOUND AND held <> brand THEN
        RAISE EXCEPTION 'IMSI % belongs to another brand', p_imsi USING ERRCODE = '42501';
    END IF;
    INSERT INTO subscriber AS s (imsi, owner, sealed, document, msisdn)
        VALUES (p_imsi, brand, p_sealed, p_document, p_msisdn)
        ON CONFLICT (imsi) DO UPDATE SET
            -- A new key starts a new sequence; the same key goes on where it was (TS 33.102 annex C).
            sqn = CASE WHEN s.sealed = excluded.sealed THEN s.sqn ELSE 0 END,
            sealed = excluded.sealed, document = excluded.document, msisdn = excluded.msisdn, updated_at = now()
            WHERE s.owner = brand;
    DELETE FROM number WHERE imsi = p_imsi AND msisdn <> ALL (p_msisdn);
    INSERT INTO number (msisdn, imsi) SELECT DISTINCT n, p_imsi FROM unnest(p_msisdn) n
        WHERE NOT EXISTS (SELECT FROM number x WHERE x.msisdn = n AND x.imsi = p_imsi);
END $$
-- end of statement
CREATE FUNCTION set_subscriber_status(p_imsi text, p_status integer, p_barring integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
DECLARE
    brand text := caller();
BEGIN
    UPDATE subscriber SET updated_at = now(), document = document
        || jsonb_build_object('subscriber_status', p_status, 'operator_determined_barring', p_barring)
        WHERE imsi = p_imsi AND owner = brand;
    RETURN FOUND;
END $$
-- end of statement
CREATE FUNCTION remove_subscriber(p_imsi text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
DECLARE
    brand text := caller();
BEGIN
    DELETE FROM subscriber WHERE imsi = p_imsi AND owner = brand;
    RETURN FOUND;
END $$
-- end of statement
CREATE FUNCTION count_subscribers() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = directory, pg_temp AS $$
DECLARE
    brand text := caller();
BEGIN
    RETURN (SELECT count(*) FROM subscriber WHERE owner = brand);
END $$
-- end of statement
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA directory FROM PUBLIC
-- end of statement
GRANT EXECUTE ON FUNCTION put_subscriber(text, text[], bytea, jsonb), set_subscriber_status(text, integer, integer),
    remove_subscriber(text), count_subscribers() TO mvno_bss
