-- +goose Up

-- What protects a key version, as its vault shows it: 0 software, 1 the old
-- HSM platform, 2 the new one; empty where no vault has shown it yet.
ALTER TABLE key_versions ADD COLUMN hsm_platform text NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE key_versions DROP COLUMN hsm_platform;
