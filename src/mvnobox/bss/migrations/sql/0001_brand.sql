CREATE TABLE individual (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    given_name  text NOT NULL,
    family_name text NOT NULL,
    email       text,
    locale      text NOT NULL,
    -- {type, number, issuer}: what the law of some countries asks for before activation.
    identification jsonb,
    verified_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
)
-- end of statement
CREATE TABLE product_order (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    external_id text UNIQUE,
    party       uuid NOT NULL REFERENCES individual,
    plan        text NOT NULL,
    state       text NOT NULL CHECK (state IN ('acknowledged', 'pending', 'inProgress', 'completed', 'failed')),
    reason      text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz,
    -- The customer's link to the order: not to be guessed.
    token       text NOT NULL UNIQUE
)
-- end of statement
CREATE TABLE product (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    order_id   uuid NOT NULL UNIQUE REFERENCES product_order,
    party      uuid NOT NULL REFERENCES individual,
    plan       text NOT NULL,
    status     text NOT NULL CHECK (status IN ('created', 'active', 'suspended', 'terminated')),
    msisdn     text,
    iccid      text,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz
)
-- end of statement
CREATE TABLE sim (
    iccid         text PRIMARY KEY,
    imsi          text NOT NULL UNIQUE,
    -- AES-256-GCM over {"ki", "opc"} with the ICCID as associated data: nonce, then ciphertext.
    keys          bytea NOT NULL,
    -- What the directory got: the same octets again keep the authentication sequence.
    sealed        bytea NOT NULL,
    matching_id   text NOT NULL UNIQUE,
    product       uuid REFERENCES product,
    state         text NOT NULL CHECK (state IN ('assigned', 'retired')),
    created_at    timestamptz NOT NULL DEFAULT now()
)
-- end of statement
CREATE TABLE sim_audit (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at    timestamptz NOT NULL DEFAULT now(),
    iccid text NOT NULL,
    what  text NOT NULL
)
-- end of statement
-- Numbers in use; a number given back may be given out again after its rest.
CREATE TABLE number (
    msisdn      text PRIMARY KEY,
    product     uuid REFERENCES product,
    released_at timestamptz
)
-- end of statement
-- The next identity that was never used, locked while one is taken.
CREATE TABLE counter (
    name  text PRIMARY KEY,
    value bigint NOT NULL
)
-- end of statement
CREATE TABLE topup (
    id          uuid PRIMARY KEY,
    product     uuid NOT NULL REFERENCES product,
    offer       text NOT NULL,
    amount      numeric(12, 2) NOT NULL,
    currency    text NOT NULL,
    state       text NOT NULL CHECK (state IN ('acknowledged', 'confirmed', 'failed')),
    created_at  timestamptz NOT NULL DEFAULT now()
)
-- end of statement
-- What is to be done at the OCS: in the transaction of its cause, delivered at least once, repeatable by its id.
CREATE TABLE outbox (
    id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    product  uuid NOT NULL REFERENCES product,
    method   text NOT NULL,
    path     text NOT NULL,
    body     jsonb NOT NULL,
    effect   jsonb NOT NULL DEFAULT '{}',
    attempts integer NOT NULL DEFAULT 0,
    next_at  timestamptz NOT NULL DEFAULT now(),
    done_at  timestamptz,
    failure  text
)
-- end of statement
CREATE INDEX outbox_due ON outbox (product, sequence) WHERE done_at IS NULL
