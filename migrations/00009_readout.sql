-- +goose Up

-- Those who watch a roll are told that it has a new entry; what it says they
-- read. The payload is the roll's id and nothing else.
-- +goose StatementBegin
CREATE FUNCTION keyroll_tell_watchers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('keyroll_roll', NEW.roll_id::text);
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER audit_entries_tell AFTER INSERT ON audit_entries FOR EACH ROW WHEN (NEW.roll_id IS NOT NULL) EXECUTE FUNCTION keyroll_tell_watchers();

-- Exports of the log go by time.
CREATE INDEX audit_entries_at ON audit_entries (at, id);

-- +goose Down
DROP INDEX audit_entries_at;
DROP TRIGGER audit_entries_tell ON audit_entries;
DROP FUNCTION keyroll_tell_watchers();
