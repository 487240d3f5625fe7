-- How many changes the platform's own tables show: one for each committed transaction.
select (select count(*) from platform.student)
     + (select count(*) from platform.internship)
     + (select count(*) from platform.certificate) as rows
