CREATE TABLE setting (
    name  text PRIMARY KEY,
    value text NOT NULL
)
-- end of statement
CREATE TABLE session (
    -- Our SEID towards both sides.
    seid         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    smf_seid     numeric(20) NOT NULL,
    smf_address  text NOT NULL,
    smf_port     integer NOT NULL,
    upf_seid     numeric(20),
    imsi         text,
    dnn          text,
    urrs         integer[] NOT NULL DEFAULT '{}',
    -- FAR ID → the action that the SMF wants; ours goes on top while the gate is closed.
    fars         jsonb NOT NULL DEFAULT '{}',
    open         boolean NOT NULL,
    threshold    bigint NOT NULL,
    nchf_ref     text,
    nchf_sequence integer NOT NULL DEFAULT 0,
    -- URR ID → [all UR-SEQNs up to this one, [some beyond it]] that were taken into account.
    seen         jsonb NOT NULL DEFAULT '{}',
    octets       bigint NOT NULL DEFAULT 0,
    asked_at     timestamptz NOT NULL DEFAULT now(),
    created_at   timestamptz NOT NULL DEFAULT now(),
    deleted_at   timestamptz
)
-- end of statement
-- Nchf requests that the OCS has not answered yet, in the order of their sequence.
CREATE TABLE pending (
    seid     bigint NOT NULL REFERENCES session ON DELETE CASCADE,
    sequence integer NOT NULL,
    used     bigint NOT NULL,
    uplink   bigint NOT NULL,
    downlink bigint NOT NULL,
    release  boolean NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (seid, sequence)
)
