CREATE TABLE house_definition (
    id VARCHAR(64) NOT NULL PRIMARY KEY,
    definition_key VARCHAR(255) NOT NULL,
    version INTEGER NOT NULL,
    call_back_class VARCHAR(255)
);
CREATE TABLE house_flow (
    id VARCHAR(64) NOT NULL PRIMARY KEY,
    definition_id VARCHAR(64) NOT NULL REFERENCES house_definition,
    business_key VARCHAR(255),
    call_back_class VARCHAR(255),
    state VARCHAR(20) NOT NULL
);
INSERT INTO house_definition VALUES
    ('contract_approval:1:7f1d2e0a', 'contract_approval', 1, 'com.example.ContractSigned'),
    ('leave_request:1:7f1d2e0b', 'leave_request', 1, NULL),
    ('expense_approval:1:7f1d2e0c', 'expense_approval', 1, NULL);
