-- +goose Up

-- By which transport each place of a tenant (Exchange, or one SharePoint geo)
-- is changed and read: what the last probe that could decide has chosen. A
-- change has its audit entry and event in the same transaction.
CREATE TABLE tenant_transports (
  tenant_id   uuid NOT NULL REFERENCES tenants,
  place       text NOT NULL,
  via         text NOT NULL CHECK (via IN ('', 'automation', 'manual')),
  reads       text NOT NULL CHECK (reads IN ('', 'automation', 'none')),
  declared    text NOT NULL,
  choice      jsonb NOT NULL,
  since       timestamptz NOT NULL,
  probed_at   timestamptz NOT NULL,
  version     bigint NOT NULL DEFAULT 1,
  audit_chain bytea NOT NULL DEFAULT '',
  PRIMARY KEY (tenant_id, place)
);
GRANT SELECT, INSERT, UPDATE ON tenant_transports TO keyroll_app;

-- +goose Down
DROP TABLE tenant_transports;
