-- How often assistants and callers are used; and webhooks that are sealed as credentials are.

-- +goose Up
ALTER TABLE assistant_org_mapping ADD COLUMN use_count bigint NOT NULL DEFAULT 0;
ALTER TABLE caller_tokens ADD COLUMN use_count bigint NOT NULL DEFAULT 0;

ALTER TABLE webhook_deliveries ADD COLUMN key_id text COLLATE "C" NOT NULL DEFAULT ''; -- '': header and body are as they came
ALTER TABLE webhook_deliveries ADD COLUMN body_size bigint; -- NULL: that of body

-- +goose Down
DELETE FROM webhook_deliveries WHERE key_id <> ''; -- nobody could tell any more that they are sealed, and apps would get what they cannot read
ALTER TABLE webhook_deliveries DROP COLUMN body_size;
ALTER TABLE webhook_deliveries DROP COLUMN key_id;
ALTER TABLE caller_tokens DROP COLUMN use_count;
ALTER TABLE assistant_org_mapping DROP COLUMN use_count;
