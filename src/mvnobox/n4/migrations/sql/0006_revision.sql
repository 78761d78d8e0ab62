ALTER TABLE session
    -- Counts what is written of gate, limits, rates and forwarding.
    ADD COLUMN revision bigint NOT NULL DEFAULT 0,
    -- The gate was closed because the OCS did not answer: it has to be asked again, whoever gets the answer that was waited for.
    ADD COLUMN without_ocs boolean NOT NULL DEFAULT false
