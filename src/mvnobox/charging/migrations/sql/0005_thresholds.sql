-- What happened to accounts, for their brand: kept until it says that it has it.
CREATE TABLE account_event (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    n          bigint GENERATED ALWAYS AS IDENTITY,
    at         timestamptz NOT NULL DEFAULT now(),
    brand      text NOT NULL,
    account_id text NOT NULL,
    type       text NOT NULL,
    body       jsonb NOT NULL
)
-- end of statement
CREATE INDEX account_event_open ON account_event (brand, n)
-- end of statement
-- Percent of the bucket's use that its brand was told of last.
ALTER TABLE bucket ADD COLUMN told smallint NOT NULL DEFAULT 0 CHECK (told IN (0, 50, 80, 100))
-- end of statement
-- Of several thresholds that one use passes only the highest is told.
CREATE FUNCTION threshold_passed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.told := CASE WHEN NEW.used >= NEW.granted THEN 100 WHEN NEW.used::float8 >= 0.8 * NEW.granted THEN 80 ELSE 50 END;
    INSERT INTO account_event (brand, account_id, type, body)
        SELECT a.brand, a.account_id, 'bucket.threshold', jsonb_build_object('percent', NEW.told, 'bucket', NEW.id,
            'unit', NEW.unit, 'granted', NEW.granted, 'used', NEW.used, 'source', NEW.source, 'validUntil', NEW.valid_until)
        FROM account a WHERE a.aid = NEW.aid;
    RETURN NEW;
END $$
-- end of statement
-- The condition costs a comparison a change of a bucket; the function runs three times in a bucket's life.
CREATE TRIGGER threshold_passed BEFORE UPDATE ON bucket FOR EACH ROW
    WHEN (NEW.used > OLD.used AND NEW.used::float8 >= NEW.granted
          * CASE OLD.told WHEN 0 THEN 0.5 WHEN 50 THEN 0.8 WHEN 80 THEN 1.0 ELSE 'infinity'::float8 END)
    EXECUTE FUNCTION threshold_passed()
