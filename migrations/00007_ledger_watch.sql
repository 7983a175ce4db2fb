-- +goose Up

-- What the vault last said of a version, by the watch.
ALTER TABLE key_versions DROP CONSTRAINT key_versions_state_check;
ALTER TABLE key_versions ADD CONSTRAINT key_versions_state_check
  CHECK (state IN ('enabled', 'disabled', 'expired', 'soft_deleted', 'missing', 'unknown'));
-- A version that somebody else made is told of once, whoever saw it first.
ALTER TABLE key_versions ADD COLUMN told boolean NOT NULL DEFAULT false;
CREATE INDEX key_versions_unwell ON key_versions (state) WHERE state <> 'enabled';

-- One row for each key that has a version in the ledger: declared, former or
-- of a retired tenant. key is the name in lower case, as Key Vault compares.
-- turn_at is when its last turn was; the next one is due an interval later.
-- checked_at is when the vault last answered; unverified_since, since when it
-- does not. level is the strongest recovery level ever seen, rotation the last
-- rotation policy. Rows stay as long as the ledger's: for ever.
CREATE TABLE ledger_keys (
  tenant_id        uuid NOT NULL REFERENCES tenants,
  vault_host       text NOT NULL,
  key              text NOT NULL CHECK (key = lower(key)),
  name             text NOT NULL,
  turn_at          timestamptz NOT NULL,
  checked_at       timestamptz NOT NULL,
  unverified_since timestamptz,
  failures         integer NOT NULL DEFAULT 0,
  trouble          jsonb,
  level            text NOT NULL DEFAULT '',
  rotation         jsonb,
  version          bigint NOT NULL DEFAULT 0,
  audit_chain      bytea NOT NULL DEFAULT '',
  PRIMARY KEY (tenant_id, vault_host, key)
);
CREATE INDEX ledger_keys_turn ON ledger_keys (turn_at);
CREATE INDEX ledger_keys_checked ON ledger_keys (checked_at);
CREATE INDEX ledger_keys_vault ON ledger_keys (vault_host);

-- No version enters the ledger without being watched, whoever enters it. The
-- first turns of keys that came together are spread.
-- +goose StatementBegin
CREATE FUNCTION keyroll_watch_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO ledger_keys (tenant_id, vault_host, key, name, turn_at, checked_at)
  VALUES (NEW.tenant_id, NEW.vault_host, lower(NEW.key_name), NEW.key_name, NEW.first_seen_at - random() * interval '12 hours', NEW.first_seen_at)
  ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER key_versions_watch AFTER INSERT ON key_versions FOR EACH ROW EXECUTE FUNCTION keyroll_watch_key();
INSERT INTO ledger_keys (tenant_id, vault_host, key, name, turn_at, checked_at)
  SELECT tenant_id, vault_host, lower(key_name), min(key_name), min(last_verified_at) - random() * interval '12 hours', min(last_verified_at)
  FROM key_versions GROUP BY tenant_id, vault_host, lower(key_name);

-- Whose operation a version's tag names.
CREATE INDEX steps_operation ON steps (op_id) WHERE op_id IS NOT NULL;

-- Why a tenant needs a person. A row is closed, and kept, when what it tells
-- of was seen to have ended; at most one is open for a code and a subject.
CREATE TABLE tenant_attention (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id  uuid NOT NULL REFERENCES tenants,
  code       text NOT NULL,
  subject    text NOT NULL,
  level      text NOT NULL CHECK (level IN ('error', 'warning')),
  detail     text NOT NULL,
  action     text NOT NULL,
  policies   text[] NOT NULL DEFAULT '{}',
  since      timestamptz NOT NULL,
  cleared_at timestamptz
);
CREATE UNIQUE INDEX tenant_attention_one_open ON tenant_attention (tenant_id, code, subject) WHERE cleared_at IS NULL;
CREATE INDEX tenant_attention_subject ON tenant_attention (tenant_id, subject) WHERE cleared_at IS NULL;
CREATE INDEX tenant_attention_code ON tenant_attention (code) WHERE cleared_at IS NULL;

-- Policies of ended rolls of which Key Vault's diagnostic log may yet show that
-- Microsoft wraps with the new versions; it is looked into for up to 72 hours.
CREATE TABLE evidence_watches (
  roll_id   uuid NOT NULL REFERENCES rolls,
  policy_id text NOT NULL,
  tenant_id uuid NOT NULL REFERENCES tenants,
  looked_at timestamptz,
  until     timestamptz NOT NULL,
  next_at   timestamptz,
  trouble   text NOT NULL DEFAULT '',
  PRIMARY KEY (roll_id, policy_id)
);
CREATE INDEX evidence_watches_due ON evidence_watches (next_at) WHERE next_at IS NOT NULL;
GRANT SELECT, INSERT, UPDATE ON evidence_watches TO keyroll_app;

GRANT SELECT, INSERT, UPDATE ON ledger_keys, tenant_attention TO keyroll_app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO keyroll_app;
REVOKE DELETE, TRUNCATE ON ledger_keys, tenant_attention FROM keyroll_app;

-- +goose Down
SELECT 1 / 0 AS "the watch over the ledger cannot be undone: its rows are kept for ever";
