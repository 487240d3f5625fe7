-- The platform's own tables: what a small office for internships and certificates keeps. Posthaste has no right, no key and no
-- trigger on any of them.
create schema platform;

create table platform.student (
    student_id integer generated always as identity primary key,
    name       text not null
);

create table platform.internship (
    internship_id integer generated always as identity primary key,
    student_id    integer not null references platform.student,
    company       text not null,
    completed_at  timestamptz
);

create table platform.certificate (
    certificate_id integer generated always as identity primary key,
    internship_id  integer not null unique references platform.internship,
    grade          numeric(2, 1) not null
);
