-- An internship ends with a certificate. $1 is internship_id. Returns certificate_id.
with completed as (
    update platform.internship set completed_at = now() where internship_id = $1 returning internship_id
)
insert into platform.certificate (internship_id, grade)
select internship_id, 1 + internship_id % 30 / 10.0 from completed
returning certificate_id
