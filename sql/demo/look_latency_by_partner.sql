-- How many milliseconds from the INSERT to the partner's acceptance, retries included?
select subscription, count(*) as delivered,
       round(percentile_cont(0.5) within group (order by ms)) as p50,
       round(percentile_cont(0.95) within group (order by ms)) as p95,
       round(max(ms)) as slowest
from (
    select subscription, 1000 * extract(epoch from finished_at - posthaste.event_time(event_id)) as ms
    from posthaste.delivery where status = 'SUCCESS'
) delivered
group by subscription
order by subscription;
