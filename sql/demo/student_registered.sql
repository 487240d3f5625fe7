-- The event of register_student.sql, in the same transaction. $1 is student_id.
insert into posthaste.outbox (event_type, payload)
select 'student.registered', json_build_object('student_id', student_id, 'name', name)
from platform.student where student_id = $1
returning event_id
