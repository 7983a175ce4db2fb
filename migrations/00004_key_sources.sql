-- +goose Up

-- What protects a key version, as its vault shows it: 0 software, 1 the old
-- HSM platform, 2 the new one; empty where no vault has shown it yet.
ALTER TABLE key_versions ADD COLUMN hsm_platform text NOT NULL DEFAULT '';

-- Backups of keys, as people attest them: Keyroll makes and holds none. An
-- empty key_name stands for every key of the vault. Rows are never changed.
CREATE TABLE backups (
  id          uuid PRIMARY KEY,
  tenant_id   uuid NOT NULL REFERENCES tenants,
  vault_host  text NOT NULL,
  key_name    text NOT NULL DEFAULT '',
  taken_at    timestamptz NOT NULL,
  attested_at timestamptz NOT NULL,
  attested_by text NOT NULL CHECK (attested_by <> ''),
  note        text NOT NULL DEFAULT '',
  audit_chain bytea NOT NULL
);
CREATE INDEX backups_newest ON backups (tenant_id, attested_at DESC, id DESC);
CREATE TRIGGER backups_keep BEFORE UPDATE OR DELETE ON backups FOR EACH ROW EXECUTE FUNCTION keyroll_append_only();
CREATE TRIGGER backups_keep_all BEFORE TRUNCATE ON backups FOR EACH STATEMENT EXECUTE FUNCTION keyroll_append_only();
GRANT SELECT, INSERT ON backups TO keyroll_app;

-- +goose Down
DROP TABLE backups;
ALTER TABLE key_versions DROP COLUMN hsm_platform;
