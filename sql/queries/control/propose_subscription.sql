-- Proposes a new subscription.
--
-- Called by: `subscription propose`. Returns the change's id, and whether another administrator must approve it.
-- $1 name   $2 url   $3 event types   $4 tenant   $5 filter   $6 unknown types too   $7 waits between attempts   $8 their jitter
-- $9 timeout   $10 concurrency   $11 headers, a JSON object   $12 networks   $13 description   $14 contact   $15 reason
-- $16 rates, a JSON list   $17 the name of a schedule, instead of $7   $18 client errors   $19 max age   $20 breaker, JSON; null for the default
-- $21 pause after, a JSON text or null   $22 sandbox   $23 what becomes of the events behind a dead letter
-- $24 terms about what requests look like, and what they must not show: a JSON object   $25 waits that grow, instead of $7: the first, by what
-- factor, the longest, how many
select jsonb_build_object(
    'change_id', posthaste.propose_subscription(
        name => $1::text, url => $2::text, event_types => $3::text[], tenant => $4::text, filter => $5::text,
        unknown_types => $6::boolean, retry_intervals => coalesce(
            posthaste.retry_schedule($17::text),
            case when $25::text[] is not null then
                posthaste.exponential_schedule(($25::text[])[1]::interval, ($25::text[])[2]::numeric, ($25::text[])[3]::interval, ($25::text[])[4]::integer) end,
            $7::text[]::interval[]), retry_jitter => $8::text,
        client_errors => $18::text, max_age => $19::text::interval, breaker => coalesce($20::text::jsonb, '{}'), pause_after => $21::text::interval,
        sandbox => $22::boolean,
        timeout => $9::text::interval, concurrency => $10::integer, rates => $16::text::jsonb, headers => $11::text::jsonb, networks => $12::text[],
        after_dead_letter => $23::text,
        partner => $24::text::jsonb ->> 'partner', envelope => coalesce($24::text::jsonb ->> 'envelope', 'standard'),
        envelope_values => coalesce($24::text::jsonb -> 'envelope_values', '{}'),
        signatures => array(select jsonb_array_elements_text(coalesce($24::text::jsonb -> 'signatures', '["standard_v1"]'))),
        header_prefix => $24::text::jsonb ->> 'header_prefix', user_agent => $24::text::jsonb ->> 'user_agent',
        pass_trace => coalesce(($24::text::jsonb ->> 'pass_trace')::boolean, false),
        authentication => $24::text::jsonb -> 'authentication', tls => $24::text::jsonb -> 'tls', handshake => $24::text::jsonb -> 'handshake',
        mask => $24::text::jsonb -> 'mask',
        description => $13::text, contact => $14::text, reason => $15::text),
    'four_eyes', (select four_eyes from posthaste.setting))::text
