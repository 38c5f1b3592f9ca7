package com.example.flowhooks;

import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import javax.sql.DataSource;

/** Keeps callbacks in the engine's own database until flowhooks has stored them. */
public final class Outbox implements AutoCloseable {

    private static final System.Logger LOG = System.getLogger(Outbox.class.getName());
    private static final int PAGE = 50;
    private static final long LONGEST_WAIT = 300; // seconds

    private final DataSource dataSource;
    private final FlowhooksClient client;
    private final AtomicBoolean awake = new AtomicBoolean();
    private final ScheduledThreadPoolExecutor sender;

    public Outbox(DataSource dataSource, FlowhooksClient client) {
        this.dataSource = dataSource;
        this.client = client;
        this.sender = new ScheduledThreadPoolExecutor(1, work -> {
            Thread thread = new Thread(work, "flowhooks-outbox");
            thread.setDaemon(true);
            return thread;
        }, new ThreadPoolExecutor.DiscardPolicy()); // a process may end after close()
    }

    /** Starts to send. Callbacks that are added before are stored only. */
    public void start() {
        sender.scheduleWithFixedDelay(this::sendWhatIsDue, 0, 1, TimeUnit.SECONDS);
    }

    /** Writes a callback in the transaction of this connection, in which the process instance ends. */
    public void add(Connection connection, CallBack callBack) throws SQLException {
        try (PreparedStatement insert = connection.prepareStatement(
                "INSERT INTO flowhooks_outbox (id, kind, flow_instance_id, body, due_at, tries)"
                        + " VALUES (?, ?, ?, ?, ?, 0)")) {
            insert.setString(1, UUID.randomUUID().toString());
            insert.setString(2, callBack.kind);
            insert.setString(3, callBack.flowInstanceId);
            insert.setString(4, callBack.json());
            insert.setLong(5, System.currentTimeMillis());
            insert.executeUpdate();
        }
    }

    /** Makes the sender check the table at once. Call it after the commit; it never waits or fails. */
    public void wake() {
        if (awake.compareAndSet(false, true)) {
            sender.execute(this::sendWhatIsDue);
        }
    }

    private void sendWhatIsDue() {
        awake.set(false);
        try {
            for (Row row : due()) {
                FlowhooksClient.Answer answer = client.send(row.kind, row.flowInstanceId, row.body);
                if (answer.next == FlowhooksClient.Next.DONE) {
                    update("DELETE FROM flowhooks_outbox WHERE id = ?", row.id);
                } else if (answer.next == FlowhooksClient.Next.WRONG) {
                    LOG.log(System.Logger.Level.ERROR, "flowhooks refuses {0}: {1}", row.flowInstanceId, answer.said);
                    String said = answer.said.substring(0, Math.min(answer.said.length(), 1000));
                    update("UPDATE flowhooks_outbox SET problem = ? WHERE id = ?", said, row.id);
                } else {
                    LOG.log(System.Logger.Level.WARNING, "{0} is sent again: {1}", row.flowInstanceId, answer.said);
                    long wait = Math.max(answer.waitSeconds, Math.min(1L << Math.min(row.tries, 30), LONGEST_WAIT));
                    update("UPDATE flowhooks_outbox SET due_at = ?, tries = tries + 1 WHERE id = ?",
                            System.currentTimeMillis() + wait * 1000, row.id);
                    return; // the other rows would fail now, too
                }
            }
        } catch (InterruptedException closing) {
            Thread.currentThread().interrupt();
        } catch (SQLException | RuntimeException error) { // an exception from this method would end the schedule
            LOG.log(System.Logger.Level.ERROR, "The outbox could not be worked on; it is tried again", error);
        }
    }

    private List<Row> due() throws SQLException {
        List<Row> rows = new ArrayList<>();
        try (Connection connection = connect();
                PreparedStatement select = connection.prepareStatement(
                        "SELECT id, kind, flow_instance_id, body, tries FROM flowhooks_outbox"
                                + " WHERE problem IS NULL AND due_at <= ? ORDER BY due_at")) {
            select.setMaxRows(PAGE);
            select.setLong(1, System.currentTimeMillis());
            try (ResultSet found = select.executeQuery()) {
                while (found.next()) {
                    rows.add(new Row(found.getString(1), found.getString(2), found.getString(3), found.getString(4),
                            found.getInt(5)));
                }
            }
        }
        return rows;
    }

    private void update(String sql, Object... values) throws SQLException {
        try (Connection connection = connect(); PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int place = 0; place < values.length; place++) {
                statement.setObject(place + 1, values[place]);
            }
            statement.executeUpdate();
        }
    }

    private Connection connect() throws SQLException { // no connection is kept open while flowhooks responds
        Connection connection = dataSource.getConnection();
        connection.setAutoCommit(true);
        return connection;
    }

    @Override
    public void close() {
        sender.shutdownNow(); // unsent rows stay in the table and are sent after the next start
    }

    private static final class Row {
        final String id;
        final String kind;
        final String flowInstanceId;
        final String body;
        final int tries;

        Row(String id, String kind, String flowInstanceId, String body, int tries) {
            this.id = id;
            this.kind = kind;
            this.flowInstanceId = flowInstanceId;
            this.body = body;
            this.tries = tries;
        }
    }
}
