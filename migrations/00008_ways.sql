-- +goose Up

-- Rolls that were swept and in which nothing has moved since: those whose job
-- may have died with the worker that took it.
CREATE INDEX rolls_swept ON rolls (swept_at) WHERE ended_at IS NULL AND swept_at > '-infinity';

-- An emergency goes through change windows and freezes, so it begins with two
-- people's approval: it is made awaiting it, and no roll becomes one, or ceases
-- to be one, later.
-- +goose StatementBegin
CREATE FUNCTION keyroll_emergency() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' AND NEW.data->'request' ? 'emergency' AND NEW.state <> 'awaiting_approval' THEN
    RAISE EXCEPTION 'an emergency begins with approvals' USING ERRCODE = 'KR422';
  END IF;
  IF TG_OP = 'UPDATE' AND OLD.data->'request'->'emergency' IS DISTINCT FROM NEW.data->'request'->'emergency' THEN
    RAISE EXCEPTION 'a roll stays an emergency, or stays none' USING ERRCODE = 'KR422';
  END IF;
  RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER rolls_emergency BEFORE INSERT OR UPDATE OF data ON rolls FOR EACH ROW EXECUTE FUNCTION keyroll_emergency();

-- Whatever the program thinks, no roll leaves awaiting_approval for work without
-- as many approvals of this plan, by as many people, as it needs. Looked at when
-- the transaction ends, since the approval is written beside the change of state.
-- +goose StatementBegin
CREATE FUNCTION keyroll_enough_approvals() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT count(*) FROM approvals a WHERE a.roll_id = NEW.id AND a.round = (NEW.data->>'round')::integer AND a.plan_hash = NEW.plan_hash)
     < (CASE WHEN NEW.data->'request' ? 'emergency' THEN 2 ELSE 1 END) THEN
    RAISE EXCEPTION 'roll % has too few approvals of its plan', NEW.id USING ERRCODE = 'KR422';
  END IF;
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE CONSTRAINT TRIGGER rolls_enough_approvals AFTER UPDATE ON rolls DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (OLD.state = 'awaiting_approval' AND NEW.state IN ('running', 'scheduled')) EXECUTE FUNCTION keyroll_enough_approvals();

-- +goose Down
DROP TRIGGER rolls_enough_approvals ON rolls;
DROP FUNCTION keyroll_enough_approvals();
DROP TRIGGER rolls_emergency ON rolls;
DROP FUNCTION keyroll_emergency();
DROP INDEX rolls_swept;
