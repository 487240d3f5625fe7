-- What can be subscribed to. An event type may be written like this or like that. The demo has one administrator.
select posthaste.set_four_eyes(false, 'a demonstration with one administrator');
select posthaste.create_event_type('student.registered', 'A student has registered with the platform.');
select posthaste.create_event_type('INTERNSHIP_APPROVED', 'A company and the school have agreed on an internship.');
select posthaste.create_event_type('certificate.issued', 'An internship is completed and its certificate issued.');
