-- Where does everything stand?
select subscription, status, count(*) as deliveries, max(attempts) as most_attempts
from posthaste.delivery
group by subscription, status
order by subscription, status;
