-- +goose Up

-- Declarations that weaken what holds, and wait for a second person. A change
-- may be of a tenant that is not there yet, so it refers to none. What it asks
-- for never changes; only what became of it does.
CREATE TABLE tenant_changes (
  id             uuid PRIMARY KEY,
  tenant_id      uuid NOT NULL,
  version        bigint NOT NULL CHECK (version > 0),
  audit_chain    bytea NOT NULL,
  base_version   bigint NOT NULL CHECK (base_version >= 0),
  state          text NOT NULL CHECK (state IN ('pending', 'approved', 'rejected', 'stale', 'expired')),
  hash           text NOT NULL,
  declaration    jsonb NOT NULL,
  weakens        jsonb NOT NULL,
  requested_by   text NOT NULL CHECK (requested_by <> ''),
  requester_kind text NOT NULL,
  requested_at   timestamptz NOT NULL,
  expires_at     timestamptz NOT NULL,
  decided_by     text NOT NULL DEFAULT '',
  decided_at     timestamptz,
  comment        text NOT NULL DEFAULT '',
  CHECK ((decided_at IS NULL) = (state = 'pending')),
  -- Four eyes, once more, whatever the program thinks.
  CONSTRAINT tenant_changes_four_eyes CHECK (state <> 'approved' OR decided_by NOT IN ('', requested_by))
);
CREATE UNIQUE INDEX tenant_changes_once ON tenant_changes (tenant_id, base_version, hash) WHERE state = 'pending';
CREATE INDEX tenant_changes_newest ON tenant_changes (tenant_id, requested_at DESC, id DESC);
CREATE INDEX tenant_changes_due ON tenant_changes (expires_at) WHERE state = 'pending';

-- +goose StatementBegin
CREATE FUNCTION keyroll_same_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.state <> 'pending' OR (NEW.id, NEW.tenant_id, NEW.base_version, NEW.hash, NEW.declaration, NEW.weakens, NEW.requested_by, NEW.requester_kind, NEW.requested_at, NEW.expires_at)
     IS DISTINCT FROM (OLD.id, OLD.tenant_id, OLD.base_version, OLD.hash, OLD.declaration, OLD.weakens, OLD.requested_by, OLD.requester_kind, OLD.requested_at, OLD.expires_at) THEN
    RAISE EXCEPTION 'a change of a tenant keeps what it asks for, and ends once' USING ERRCODE = 'KR403';
  END IF;
  RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER tenant_changes_same BEFORE UPDATE ON tenant_changes FOR EACH ROW EXECUTE FUNCTION keyroll_same_change();
GRANT SELECT, INSERT, UPDATE ON tenant_changes TO keyroll_app;

-- +goose Down
DROP TABLE tenant_changes;
DROP FUNCTION keyroll_same_change;
