-- +goose Up

-- DataEncryptionPolicyID of the sample mailboxes of a refreshed policy: what
-- it was before, and whether it changed since. It is looked at for up to 72
-- hours and holds up nothing (rule 9).
CREATE TABLE mailbox_watches (
  roll_id     uuid NOT NULL REFERENCES rolls,
  policy_id   text NOT NULL,
  mailbox     text NOT NULL,
  tenant_id   uuid NOT NULL REFERENCES tenants,
  before      text NOT NULL,
  last        text NOT NULL,
  looked_at   timestamptz,
  changed_at  timestamptz,
  until       timestamptz NOT NULL,
  next_at     timestamptz,
  version     bigint NOT NULL DEFAULT 0,
  audit_chain bytea NOT NULL DEFAULT '',
  PRIMARY KEY (roll_id, policy_id, mailbox)
);
CREATE INDEX mailbox_watches_due ON mailbox_watches (next_at) WHERE next_at IS NOT NULL;
GRANT SELECT, INSERT, UPDATE ON mailbox_watches TO keyroll_app;

-- +goose Down
DROP TABLE mailbox_watches;
