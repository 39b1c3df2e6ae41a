-- Tables of the healthcare domain (SQLite). INVENTED, all of them: no public data exist for a clinic's own calendar.
-- Days count from the day on which the file is loaded, so that the calendar always lies ahead.
CREATE TABLE doctors (
    doctor_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    department TEXT NOT NULL
);
CREATE TABLE opening_hours (
    department TEXT NOT NULL,
    weekday INTEGER NOT NULL CHECK (weekday BETWEEN 1 AND 7), -- 1 is Monday
    opens TEXT NOT NULL,
    closes TEXT NOT NULL,
    PRIMARY KEY (department, weekday)
);
CREATE TABLE appointments (
    slot_id TEXT PRIMARY KEY,
    doctor_id TEXT NOT NULL REFERENCES doctors,
    starts_at TEXT NOT NULL,
    patient_id TEXT, -- NULL: free
    reason TEXT
);
CREATE TABLE prescriptions (
    prescription_id TEXT PRIMARY KEY,
    patient_id TEXT NOT NULL,
    medicine TEXT NOT NULL,
    refills_left INTEGER NOT NULL CHECK (refills_left >= 0),
    status TEXT NOT NULL CHECK (status IN ('ready', 'in preparation', 'needs review', 'expired')),
    ready_on TEXT
);
INSERT INTO doctors VALUES
('D-01', 'Dr. Amara Osei', 'family medicine'),
('D-02', 'Dr. Jonas Weber', 'family medicine'),
('D-03', 'Dr. Mei Tanaka', 'pediatrics'),
('D-04', 'Dr. Lucia Ferrante', 'surgery'),
('D-05', 'Dr. Samuel Adeyemi', 'cardiology');
INSERT INTO opening_hours VALUES
('front desk', 1, '08:00', '18:00'), ('front desk', 2, '08:00', '18:00'), ('front desk', 3, '08:00', '18:00'),
('front desk', 4, '08:00', '18:00'), ('front desk', 5, '08:00', '16:00'), ('front desk', 6, '09:00', '12:00'),
('pharmacy', 1, '08:30', '19:00'), ('pharmacy', 2, '08:30', '19:00'), ('pharmacy', 3, '08:30', '19:00'),
('pharmacy', 4, '08:30', '19:00'), ('pharmacy', 5, '08:30', '17:00'), ('pharmacy', 6, '09:00', '13:00'),
('laboratory', 1, '07:00', '15:00'), ('laboratory', 2, '07:00', '15:00'), ('laboratory', 3, '07:00', '15:00'),
('laboratory', 4, '07:00', '15:00'), ('laboratory', 5, '07:00', '13:00');
INSERT INTO appointments VALUES
('SL-1001', 'D-01', date('now', '+7 days', 'weekday 1') || ' 09:30', 'P-1001', 'blood pressure check'),
('SL-1002', 'D-03', date('now', '+7 days', 'weekday 2') || ' 14:00', 'P-1002', 'vaccination'),
('SL-1003', 'D-04', date('now', '+7 days', 'weekday 3') || ' 10:15', 'P-1003', 'wound check after surgery'),
('SL-1004', 'D-05', date('now', '+14 days', 'weekday 4') || ' 11:00', 'P-1001', 'cardiology follow-up'),
('SL-1005', 'D-02', date('now', '+7 days', 'weekday 5') || ' 08:30', 'P-1004', 'annual check'),
('SL-2001', 'D-01', date('now', '+7 days', 'weekday 1') || ' 11:00', NULL, NULL),
('SL-2002', 'D-01', date('now', '+7 days', 'weekday 2') || ' 08:30', NULL, NULL),
('SL-2003', 'D-02', date('now', '+7 days', 'weekday 3') || ' 15:30', NULL, NULL),
('SL-2004', 'D-03', date('now', '+7 days', 'weekday 4') || ' 09:00', NULL, NULL),
('SL-2005', 'D-03', date('now', '+7 days', 'weekday 5') || ' 10:30', NULL, NULL),
('SL-2006', 'D-04', date('now', '+14 days', 'weekday 1') || ' 13:00', NULL, NULL),
('SL-2007', 'D-05', date('now', '+14 days', 'weekday 2') || ' 16:00', NULL, NULL),
('SL-2008', 'D-02', date('now', '+14 days', 'weekday 4') || ' 12:00', NULL, NULL);
INSERT INTO prescriptions VALUES
('RX-501', 'P-1001', 'lisinopril 10 mg', 2, 'ready', date('now', '+1 day')),
('RX-502', 'P-1001', 'atorvastatin 20 mg', 0, 'needs review', NULL),
('RX-503', 'P-1002', 'amoxicillin 250 mg', 0, 'expired', NULL),
('RX-504', 'P-1003', 'ibuprofen 400 mg', 1, 'in preparation', date('now', '+2 days')),
('RX-505', 'P-1004', 'metformin 500 mg', 5, 'ready', date('now', '+1 day')),
('RX-506', 'P-1005', 'salbutamol inhaler', 3, 'ready', date('now', '+1 day'));
