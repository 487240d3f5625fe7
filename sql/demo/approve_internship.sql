-- An internship is approved. $1 is student_id. Returns internship_id.
insert into platform.internship (student_id, company)
values ($1, (array['Analytical Engines & Sons', 'Café Größenwahn', 'Tide/Mill Ltd'])[1 + $1 % 3])
returning internship_id
