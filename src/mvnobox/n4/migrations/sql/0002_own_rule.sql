-- Sessions from before count on the SMF's first rule; they go on doing so.
ALTER TABLE session ADD COLUMN own_urr integer, ADD COLUMN quota bigint,
    ADD COLUMN behind_gate boolean NOT NULL DEFAULT false
-- end of statement
UPDATE session SET own_urr = coalesce(urrs[1], 16)
-- end of statement
ALTER TABLE session ALTER COLUMN own_urr SET NOT NULL, DROP COLUMN urrs
-- end of statement
COMMENT ON COLUMN session.behind_gate IS
    'the UPF has closed the gate: reports as large as the closed gate''s threshold are of dropped traffic'
-- end of statement
CREATE INDEX session_live ON session (smf_address) WHERE deleted_at IS NULL
