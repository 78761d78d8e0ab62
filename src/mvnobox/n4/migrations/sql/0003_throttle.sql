ALTER TABLE session
    -- bit/s; NULL while the session is not slowed down.
    ADD COLUMN throttle_uplink bigint,
    ADD COLUMN throttle_downlink bigint,
    -- QER ID → the MBR that the SMF wants, empty for none; ours goes in its place while the session is slowed down.
    ADD COLUMN qers jsonb NOT NULL DEFAULT '{}',
    -- The UE's IPv4 address and IPv6 prefix.
    ADD COLUMN addresses text[] NOT NULL DEFAULT '{}'
-- end of statement
CREATE INDEX session_throttled ON session (seid) WHERE deleted_at IS NULL AND throttle_downlink IS NOT NULL
-- end of statement
-- Those that the UPF was never heard to have made.
CREATE INDEX session_unmade ON session (created_at) WHERE deleted_at IS NULL AND upf_seid IS NULL
