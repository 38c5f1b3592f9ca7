CREATE TABLE flowhooks_outbox (
    id VARCHAR(36) NOT NULL PRIMARY KEY,
    kind VARCHAR(20) NOT NULL,     -- complete, cancel, error or terminate
    flow_instance_id VARCHAR(255) NOT NULL,
    body CLOB NOT NULL,            -- TEXT on PostgreSQL, LONGTEXT on MySQL
    due_at BIGINT NOT NULL,        -- milliseconds since 1970; NUMBER(19) on Oracle
    tries INTEGER NOT NULL,
    problem VARCHAR(4000)          -- what flowhooks refused it with; it is not sent until this is NULL again
);
CREATE INDEX flowhooks_outbox_due ON flowhooks_outbox (due_at);
