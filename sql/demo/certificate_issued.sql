-- The event of issue_certificate.sql, in the same transaction. $1 is certificate_id.
insert into posthaste.outbox (event_type, payload)
select 'certificate.issued', json_build_object('certificate_id', certificate_id, 'student', name, 'company', company, 'grade', grade)
from platform.certificate join platform.internship using (internship_id) join platform.student using (student_id)
where certificate_id = $1
returning event_id
