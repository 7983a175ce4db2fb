-- +goose Up

-- Rolls that were swept and in which nothing has moved since: those whose job
-- may have died with the worker that took it.
CREATE INDEX rolls_swept ON rolls (swept_at) WHERE ended_at IS NULL AND swept_at > '-infinity';

-- +goose Down
DROP INDEX rolls_swept;
