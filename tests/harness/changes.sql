-- Tells whoever waits (World::until) that something changed. For tests only.
--
-- Nothing on INSERT into the outbox or the intake: a NOTIFY there would be the producer's, who could then prepare no
-- transaction, and would wake nobody anyway that the worker does not wake.
create schema trial;

create function trial.tell() returns trigger language plpgsql as $$
begin
    perform pg_notify('trial', '');
    return null;
end
$$;

-- By row: a statement that changed nothing tells nobody.
create trigger tell after delete on posthaste.intake for each row execute function trial.tell();
create trigger tell after insert or update or delete on posthaste.queue for each row execute function trial.tell();
create trigger tell after insert or update or delete on posthaste.lease for each row execute function trial.tell();
create trigger tell after insert on posthaste.attempt for each row execute function trial.tell();
create trigger tell after insert or update on posthaste.worker for each row execute function trial.tell();
