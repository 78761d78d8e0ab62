ALTER TABLE session
    -- FAR ID → the elements that say where it leads, of those that lead to the data network.
    ADD COLUMN towards jsonb NOT NULL DEFAULT '{}',
    -- FAR ID → the FAR that carries the control plane's packets: itself, or ours in its place. No gate is before these.
    ADD COLUMN control jsonb NOT NULL DEFAULT '{}'
-- end of statement
COMMENT ON COLUMN session.fars IS
    'FAR ID → the action that the SMF wants, of those that carry the customer''s traffic'
