-- A student registers. $1 is the number of the transaction, and picks the name. Returns student_id.
insert into platform.student (name)
values ((array['Ada Lovelace', 'Zoë Müller', 'Søren Holm', 'Nguyễn Văn An', 'Олена Коваль', '山田 花子', 'Jean "Jeannot" Roux'])[1 + $1 % 7])
returning student_id
