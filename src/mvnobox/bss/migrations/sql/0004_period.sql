-- The length that `period` counts in, as the plan had it then (ISO 8601). Null: a line of before, not looked at since.
ALTER TABLE product ADD COLUMN period_length text
