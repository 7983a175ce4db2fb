-- +goose Up

-- Raised with SQLSTATE KR409 when a guarded write did not hit its one row: it
-- aborts everything that was sent with it, so a stale writer commits nothing.
-- +goose StatementBegin
CREATE FUNCTION keyroll_must_be_one(n bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF n <> 1 THEN
    RAISE EXCEPTION 'stale: the row was changed by somebody else' USING ERRCODE = 'KR409';
  END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION keyroll_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% on % is refused: the table is append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'KR403';
END $$;
-- +goose StatementEnd

CREATE TABLE tenants (
  id          uuid PRIMARY KEY,
  version     bigint      NOT NULL CHECK (version > 0),
  name        text        NOT NULL,
  declaration jsonb       NOT NULL,
  audit_chain bytea       NOT NULL,
  declared_at timestamptz NOT NULL,
  updated_at  timestamptz NOT NULL,
  retired_at  timestamptz
);

-- Projections of the declarations, for look-ups. A row stays when its key or
-- policy leaves the declaration; only declared is cleared.
CREATE TABLE root_keys (
  tenant_id  uuid NOT NULL REFERENCES tenants,
  id         text NOT NULL,
  vault_host text NOT NULL,
  name       text NOT NULL,
  declared   boolean NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX root_keys_one_owner ON root_keys (vault_host, lower(name)) WHERE declared;

CREATE TABLE policies (
  tenant_id uuid NOT NULL REFERENCES tenants,
  id        text NOT NULL,
  workload  text NOT NULL CHECK (workload IN ('multi-workload', 'exchange', 'sharepoint')),
  name      text NOT NULL,
  guid      text NOT NULL,
  geo       text NOT NULL,
  key_ids   text[] NOT NULL,
  declared  boolean NOT NULL,
  PRIMARY KEY (tenant_id, id)
);

-- The roll is the truth. data is the whole value but for its plan, which is
-- large and seldom changes; the columns beside it are what SQL itself asks
-- about, written by the same statement.
CREATE TABLE rolls (
  id            uuid PRIMARY KEY,
  tenant_id     uuid NOT NULL REFERENCES tenants,
  version       bigint NOT NULL CHECK (version > 0),
  state         text NOT NULL CHECK (state IN ('awaiting_approval', 'scheduled', 'running', 'needs_attention',
                  'cancelling', 'succeeded', 'failed', 'cancelled', 'rejected')),
  end_code      text NOT NULL DEFAULT '',
  outcome       text NOT NULL DEFAULT '' CHECK (outcome IN ('', 'unknown', 'attested', 'accepted', 'in_use', 'confirmed')),
  plan_hash     text NOT NULL,
  requester     text NOT NULL,
  ticket_source text,
  ticket_id     text,
  wake_at       timestamptz,
  in_flight     boolean NOT NULL DEFAULT false,
  swept_at      timestamptz NOT NULL DEFAULT '-infinity',
  plan          jsonb NOT NULL,
  data          jsonb NOT NULL,
  audit_chain   bytea NOT NULL,
  created_at    timestamptz NOT NULL,
  updated_at    timestamptz NOT NULL,
  progress_at   timestamptz NOT NULL,
  ended_at      timestamptz,
  UNIQUE (tenant_id, id),
  CHECK ((ended_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled', 'rejected'))),
  CHECK (wake_at IS NULL OR ended_at IS NULL),
  CHECK (state <> 'succeeded' OR outcome <> '')
);
CREATE INDEX rolls_wake ON rolls (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX rolls_newest ON rolls (created_at DESC, id DESC);
CREATE INDEX rolls_tenant_newest ON rolls (tenant_id, created_at DESC, id DESC);
CREATE INDEX rolls_open ON rolls (tenant_id) WHERE ended_at IS NULL;
CREATE INDEX rolls_ticket ON rolls (ticket_source, ticket_id) WHERE ticket_id IS NOT NULL;

CREATE TABLE steps (
  roll_id         uuid NOT NULL REFERENCES rolls,
  n               integer NOT NULL CHECK (n > 0),
  kind            text NOT NULL CHECK (kind IN ('preflight', 'create_key_version', 'refresh_policy', 'sharepoint_lease',
                    'sharepoint_roll_key', 'sharepoint_await', 'verify')),
  state           text NOT NULL CHECK (state IN ('pending', 'ready', 'running', 'waiting', 'needs_attention',
                    'succeeded', 'failed', 'skipped', 'cancelled')),
  epoch           bigint NOT NULL CHECK (epoch >= 0),
  worker_id       text NOT NULL DEFAULT '',
  attempt         integer NOT NULL DEFAULT 0,
  next_attempt_at timestamptz,
  op_id           uuid,
  intent_deadline timestamptz,
  intent_settled  boolean NOT NULL DEFAULT true,
  data            jsonb NOT NULL,
  PRIMARY KEY (roll_id, n),
  CHECK (intent_settled OR op_id IS NOT NULL AND intent_deadline IS NOT NULL)
);
CREATE INDEX steps_running ON steps (worker_id) WHERE state = 'running';

-- The tables of legal changes; a test holds them against the program's own.
CREATE TABLE roll_edges (from_state text, to_state text, PRIMARY KEY (from_state, to_state));
INSERT INTO roll_edges VALUES
  ('awaiting_approval', 'scheduled'), ('awaiting_approval', 'running'), ('awaiting_approval', 'rejected'),
  ('awaiting_approval', 'cancelled'),
  ('scheduled', 'running'), ('scheduled', 'cancelled'),
  ('running', 'awaiting_approval'), ('running', 'needs_attention'), ('running', 'cancelling'),
  ('running', 'cancelled'), ('running', 'succeeded'), ('running', 'failed'),
  ('needs_attention', 'running'), ('needs_attention', 'awaiting_approval'), ('needs_attention', 'cancelling'),
  ('needs_attention', 'cancelled'), ('needs_attention', 'failed'),
  ('cancelling', 'cancelled'), ('cancelling', 'failed');
CREATE TABLE step_edges (from_state text, to_state text, PRIMARY KEY (from_state, to_state));
INSERT INTO step_edges VALUES
  ('pending', 'ready'), ('pending', 'running'), ('pending', 'skipped'), ('pending', 'cancelled'),
  ('ready', 'running'), ('ready', 'pending'), ('ready', 'skipped'), ('ready', 'cancelled'),
  ('running', 'ready'), ('running', 'waiting'), ('running', 'pending'), ('running', 'needs_attention'),
  ('running', 'succeeded'), ('running', 'skipped'), ('running', 'cancelled'),
  ('waiting', 'ready'), ('waiting', 'running'), ('waiting', 'pending'), ('waiting', 'needs_attention'),
  ('waiting', 'succeeded'), ('waiting', 'skipped'), ('waiting', 'cancelled'),
  ('needs_attention', 'ready'), ('needs_attention', 'skipped'), ('needs_attention', 'cancelled'),
  ('succeeded', 'pending');

-- +goose StatementBegin
CREATE FUNCTION keyroll_legal_roll() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM roll_edges WHERE from_state = OLD.state AND to_state = NEW.state) THEN
    RAISE EXCEPTION 'a roll cannot go from % to %', OLD.state, NEW.state USING ERRCODE = 'KR422';
  END IF;
  RETURN NEW;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION keyroll_legal_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.epoch < OLD.epoch THEN
    RAISE EXCEPTION 'a step''s epoch cannot go back' USING ERRCODE = 'KR422';
  END IF;
  IF NEW.state <> OLD.state AND NOT EXISTS (SELECT 1 FROM step_edges WHERE from_state = OLD.state AND to_state = NEW.state) THEN
    RAISE EXCEPTION 'a step cannot go from % to %', OLD.state, NEW.state USING ERRCODE = 'KR422';
  END IF;
  RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER rolls_legal BEFORE UPDATE ON rolls FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION keyroll_legal_roll();
CREATE TRIGGER steps_legal BEFORE UPDATE ON steps FOR EACH ROW EXECUTE FUNCTION keyroll_legal_step();

-- One open roll per root key, and per Exchange or multi-workload policy (rule 10).
CREATE TABLE roll_keys (
  roll_id    uuid NOT NULL,
  tenant_id  uuid NOT NULL,
  key_id     text NOT NULL,
  vault_host text NOT NULL,
  key_name   text NOT NULL,
  open       boolean NOT NULL,
  PRIMARY KEY (roll_id, key_id),
  FOREIGN KEY (tenant_id, roll_id) REFERENCES rolls (tenant_id, id)
);
CREATE UNIQUE INDEX roll_keys_one_open ON roll_keys (vault_host, lower(key_name)) WHERE open;
CREATE INDEX roll_keys_by_key ON roll_keys (tenant_id, key_id);
CREATE TABLE roll_policies (
  roll_id   uuid NOT NULL,
  tenant_id uuid NOT NULL,
  policy_id text NOT NULL,
  workload  text NOT NULL,
  open      boolean NOT NULL,
  PRIMARY KEY (roll_id, policy_id),
  FOREIGN KEY (tenant_id, roll_id) REFERENCES rolls (tenant_id, id)
);
CREATE UNIQUE INDEX roll_policies_one_open ON roll_policies (tenant_id, policy_id) WHERE open AND workload <> 'sharepoint';

-- Four eyes, once more: whatever the program thinks, nobody approves his own roll.
-- A new plan may have the hash of an earlier one and still needs a new approval.
CREATE TABLE approvals (
  roll_id   uuid NOT NULL REFERENCES rolls,
  round     integer NOT NULL CHECK (round > 0),
  approver  text NOT NULL,
  requester text NOT NULL,
  plan_hash text NOT NULL,
  comment   text NOT NULL DEFAULT '',
  at        timestamptz NOT NULL,
  PRIMARY KEY (roll_id, round, approver),
  CONSTRAINT approvals_four_eyes CHECK (approver <> requester)
);

-- The ledger: every key version that a policy may ever have used. Rows are
-- never removed, since none of these versions may be; nor may one be made to
-- name another version. Key Vault compares names without regard to case.
-- A key that changes hands is in the ledger of each tenant that ever used it.
CREATE TABLE key_versions (
  vault_host       text NOT NULL,
  key_name         text NOT NULL,
  version          text NOT NULL,
  tenant_id        uuid NOT NULL REFERENCES tenants,
  key_id           text NOT NULL,
  policies         text[] NOT NULL,
  origin           text NOT NULL CHECK (origin IN ('backfill', 'roll', 'stranger')),
  roll_id          uuid,
  state            text NOT NULL CHECK (state IN ('enabled', 'disabled', 'missing', 'unknown')),
  created_at       timestamptz NOT NULL,
  first_seen_at    timestamptz NOT NULL,
  last_verified_at timestamptz NOT NULL,
  FOREIGN KEY (tenant_id, roll_id) REFERENCES rolls (tenant_id, id)
);
CREATE UNIQUE INDEX key_versions_once ON key_versions (tenant_id, vault_host, lower(key_name), version);
CREATE INDEX key_versions_newest ON key_versions (tenant_id, created_at DESC, (vault_host || ' ' || key_name || ' ' || version));
-- +goose StatementBegin
CREATE FUNCTION keyroll_same_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.tenant_id, NEW.vault_host, NEW.key_name, NEW.version, NEW.first_seen_at)
     IS DISTINCT FROM (OLD.tenant_id, OLD.vault_host, OLD.key_name, OLD.version, OLD.first_seen_at) OR NOT NEW.policies @> OLD.policies THEN
    RAISE EXCEPTION 'a ledger row keeps its version and its policies' USING ERRCODE = 'KR403';
  END IF;
  RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER key_versions_same BEFORE UPDATE ON key_versions FOR EACH ROW EXECUTE FUNCTION keyroll_same_version();
CREATE TRIGGER key_versions_keep BEFORE DELETE ON key_versions FOR EACH ROW EXECUTE FUNCTION keyroll_append_only();
CREATE TRIGGER key_versions_keep_all BEFORE TRUNCATE ON key_versions FOR EACH STATEMENT EXECUTE FUNCTION keyroll_append_only();

-- The right to change a tenant's SharePoint keys. There is no expiry: the
-- remote work outlives us, so time proves nothing.
CREATE TABLE sharepoint_leases (
  tenant_id    uuid NOT NULL REFERENCES tenants,
  scope        text NOT NULL,
  holder       uuid,
  held_since   timestamptz,
  last_ended   jsonb NOT NULL DEFAULT '{}',
  release_by   text,
  release_at   timestamptz,
  release_why  text,
  release_of   uuid,
  version      bigint NOT NULL DEFAULT 0,
  audit_chain  bytea NOT NULL DEFAULT '',
  PRIMARY KEY (tenant_id, scope),
  FOREIGN KEY (tenant_id, holder) REFERENCES rolls (tenant_id, id),
  CHECK ((holder IS NULL) = (held_since IS NULL))
);
CREATE TABLE sharepoint_queue (
  place     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id uuid NOT NULL,
  scope     text NOT NULL,
  roll_id   uuid NOT NULL,
  queued_at timestamptz NOT NULL,
  UNIQUE (tenant_id, scope, roll_id),
  FOREIGN KEY (tenant_id, roll_id) REFERENCES rolls (tenant_id, id),
  FOREIGN KEY (tenant_id, scope) REFERENCES sharepoint_leases
);

-- The outbox.
CREATE TABLE events (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id    uuid NOT NULL,
  roll_id      uuid,
  roll_version bigint,
  type         text NOT NULL,
  payload      jsonb NOT NULL,
  at           timestamptz NOT NULL
);
CREATE INDEX events_roll ON events (roll_id, id);

CREATE TABLE idempotency (
  subject    text NOT NULL,
  key        text NOT NULL,
  body_hash  bytea NOT NULL,
  claim      uuid NOT NULL,
  claimed_at timestamptz NOT NULL,
  status     integer,
  answer     bytea,
  location   text,
  PRIMARY KEY (subject, key)
);
CREATE INDEX idempotency_age ON idempotency (claimed_at);

CREATE TABLE workers (
  id         text PRIMARY KEY,
  started_at timestamptz NOT NULL,
  beat_at    timestamptz NOT NULL
);

CREATE TABLE api_tokens (
  id          uuid PRIMARY KEY,
  version     bigint NOT NULL,
  name        text NOT NULL,
  kind        text NOT NULL CHECK (kind IN ('person', 'service')),
  subject     text NOT NULL CHECK (subject <> ''),
  roles       text[] NOT NULL,
  prefix      text NOT NULL,
  hash        bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
  audit_chain bytea NOT NULL,
  created_at  timestamptz NOT NULL,
  expires_at  timestamptz,
  revoked_at  timestamptz
);
CREATE INDEX api_tokens_prefix ON api_tokens (prefix);

-- The audit log. Each subject (a roll, a tenant, a token, a lease) counts its
-- own versions and keeps a running digest of its entries in its own row.
CREATE TABLE audit_entries (
  id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id uuid,
  roll_id   uuid,
  subject   text NOT NULL,
  version   bigint NOT NULL,
  at        timestamptz NOT NULL,
  bytes     bytea NOT NULL,
  UNIQUE (subject, version)
);
CREATE INDEX audit_entries_roll ON audit_entries (roll_id, id) WHERE roll_id IS NOT NULL;
CREATE TRIGGER audit_entries_keep BEFORE UPDATE OR DELETE ON audit_entries FOR EACH ROW EXECUTE FUNCTION keyroll_append_only();
CREATE TRIGGER audit_entries_keep_all BEFORE TRUNCATE ON audit_entries FOR EACH STATEMENT EXECUTE FUNCTION keyroll_append_only();
-- They hold for a session that skips triggers (session_replication_role) too.
ALTER TABLE audit_entries ENABLE ALWAYS TRIGGER audit_entries_keep;
ALTER TABLE audit_entries ENABLE ALWAYS TRIGGER audit_entries_keep_all;
ALTER TABLE key_versions ENABLE ALWAYS TRIGGER key_versions_same;
ALTER TABLE key_versions ENABLE ALWAYS TRIGGER key_versions_keep;
ALTER TABLE key_versions ENABLE ALWAYS TRIGGER key_versions_keep_all;
-- Entries that no tree holds yet, and the tree.
CREATE TABLE audit_pending (id bigint PRIMARY KEY);
CREATE TABLE audit_leaves (index bigint PRIMARY KEY, entry_id bigint NOT NULL UNIQUE REFERENCES audit_entries);
CREATE TABLE audit_hashes (index bigint PRIMARY KEY, hash bytea NOT NULL CHECK (length(hash) = 32));
CREATE TABLE audit_head (one boolean PRIMARY KEY DEFAULT true CHECK (one), size bigint NOT NULL, root bytea NOT NULL, at timestamptz NOT NULL);

-- The role that the service runs as: it can add to the audit log and read it,
-- and can remove nothing from the ledger. Roles belong to the whole cluster,
-- so one may be there already, made by us or by somebody whose right it is.
-- +goose StatementBegin
DO $$ BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'keyroll_app') THEN
    BEGIN
      CREATE ROLE keyroll_app NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END;
  END IF;
  -- Whoever migrates may be who serves: it has to be able to take the role.
  IF NOT pg_has_role(current_user, 'keyroll_app', 'MEMBER') THEN
    BEGIN
      EXECUTE format('GRANT keyroll_app TO %I', current_user);
    EXCEPTION WHEN insufficient_privilege THEN
      RAISE NOTICE 'an administrator must run: GRANT keyroll_app TO %', current_user;
    END;
  END IF;
END $$;
-- +goose StatementEnd
GRANT USAGE ON SCHEMA public TO keyroll_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO keyroll_app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO keyroll_app;
REVOKE UPDATE, DELETE, TRUNCATE ON audit_entries, audit_leaves, audit_hashes FROM keyroll_app;
REVOKE DELETE, TRUNCATE ON key_versions, rolls, steps, tenants, root_keys, policies, roll_keys, roll_policies,
  sharepoint_leases, api_tokens FROM keyroll_app;
REVOKE UPDATE, DELETE, TRUNCATE ON approvals FROM keyroll_app;
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON roll_edges, step_edges FROM keyroll_app;

-- +goose Down
SELECT 1 / 0 AS "the first schema cannot be undone: the audit log and the ledger are kept for ever";
