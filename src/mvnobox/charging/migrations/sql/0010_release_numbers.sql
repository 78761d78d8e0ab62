-- A new status; the account's sessions are told when it changes. The caller's statement has the account's row locked.
-- An account that ends has no identifiers any more. Its sessions' last updates come by session and are still charged.
CREATE OR REPLACE FUNCTION set_status(p_aid bigint, p_status text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_status = 'terminated' THEN
        DELETE FROM subscriber WHERE aid = p_aid;
    END IF;
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
DELETE FROM subscriber b USING account a WHERE a.aid = b.aid AND a.status = 'terminated'
