ALTER TABLE session
    -- The OCS is asked anew then at the latest; asked_at is read by nobody after this version.
    ADD COLUMN renew_at timestamptz NOT NULL DEFAULT now() + interval '30 minutes',
    -- The UPF has not taken what `open`, the limits and the throttle say.
    ADD COLUMN untold boolean NOT NULL DEFAULT false,
    -- Its SMF has started anew and does not know it: it has to end on the UPF.
    ADD COLUMN ending boolean NOT NULL DEFAULT false
-- end of statement
-- Sessions from before: their deadlines are not known, and the OCS has an address of theirs that is not served any more.
-- A request tells both; not all at once.
UPDATE session SET renew_at = now() + random() * interval '60 seconds' WHERE deleted_at IS NULL
-- end of statement
COMMENT ON COLUMN session.behind_gate IS
    'the UPF has closed the gate (open is what it shall do): reports as large as the closed gate''s threshold are of dropped traffic'
