-- The event of approve_internship.sql, in the same transaction. $1 is internship_id.
insert into posthaste.outbox (event_type, payload)
select 'INTERNSHIP_APPROVED', json_build_object('internship_id', internship_id, 'student', name, 'company', company)
from platform.internship join platform.student using (student_id) where internship_id = $1
returning event_id
