-- +goose Up

-- When each tenant is compared next with what Microsoft has, and what the last
-- look could read. looked_at is the last look of any kind, compared_at the last
-- one that no passing failure cut short. The row counts the audit entries about
-- the tenant's drift.
CREATE TABLE tenant_comparisons (
  tenant_id   uuid PRIMARY KEY REFERENCES tenants,
  next_at     timestamptz NOT NULL,
  failures    integer NOT NULL DEFAULT 0,
  looked_at   timestamptz,
  compared_at timestamptz,
  not_checked jsonb NOT NULL DEFAULT '[]',
  reads       jsonb NOT NULL DEFAULT '[]',
  version     bigint NOT NULL DEFAULT 0,
  audit_chain bytea NOT NULL DEFAULT ''
);
CREATE INDEX tenant_comparisons_due ON tenant_comparisons (next_at);

-- A difference between declaration and Microsoft, from when it was detected
-- until it was cleared. One that comes back takes its row again; the audit log
-- has each time.
CREATE TABLE tenant_drift (
  tenant_id  uuid NOT NULL REFERENCES tenants,
  key        text NOT NULL,
  code       text NOT NULL,
  subject    text NOT NULL,
  source     text NOT NULL,
  declared   text NOT NULL,
  seen       text NOT NULL,
  remedy     text NOT NULL,
  since      timestamptz NOT NULL,
  last_seen  timestamptz NOT NULL,
  cleared_at timestamptz,
  PRIMARY KEY (tenant_id, key)
);
CREATE INDEX tenant_drift_open ON tenant_drift (tenant_id) WHERE cleared_at IS NULL;

INSERT INTO tenant_comparisons (tenant_id, next_at) SELECT id, now() FROM tenants;
GRANT SELECT, INSERT, UPDATE ON tenant_comparisons, tenant_drift TO keyroll_app;

-- +goose Down
SELECT 1 / 0 AS "the audit log counts on these rows: they are kept for ever";
