-- How often assistants and callers are used; and webhooks that are sealed as credentials are.

-- +goose Up
ALTER TABLE assistant_org_mapping ADD COLUMN use_count bigint NOT NULL DEFAULT 0;
ALTER TABLE caller_tokens ADD COLUMN use_count bigint NOT NULL DEFAULT 0;

ALTER TABLE webhook_deliveries ADD COLUMN key_id text COLLATE "C" NOT NULL DEFAULT ''; -- '': header and body are as they came
ALTER TABLE webhook_deliveries ADD COLUMN body_size bigint; -- NULL: that of body

-- A sidecar of an older version, which shares the store while versions are replaced, cannot open them and would deliver them as they are:
-- it leases none. Who can, says so in its name.
-- +goose StatementBegin
CREATE FUNCTION keyward_keep_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL; -- the row is left out
END
$$;
-- +goose StatementEnd
CREATE TRIGGER webhook_deliveries_keep_sealed BEFORE UPDATE OF lease_owner ON webhook_deliveries FOR EACH ROW
    WHEN (NEW.key_id <> '' AND NEW.lease_owner <> '' AND NEW.lease_owner NOT LIKE 'opener %')
    EXECUTE FUNCTION keyward_keep_sealed();

-- +goose Down
DROP TRIGGER webhook_deliveries_keep_sealed ON webhook_deliveries;
DROP FUNCTION keyward_keep_sealed();
DELETE FROM webhook_deliveries WHERE key_id <> ''; -- nobody could tell any more that they are sealed, and apps would get what they cannot read
ALTER TABLE webhook_deliveries DROP COLUMN body_size;
ALTER TABLE webhook_deliveries DROP COLUMN key_id;
ALTER TABLE caller_tokens DROP COLUMN use_count;
ALTER TABLE assistant_org_mapping DROP COLUMN use_count;
