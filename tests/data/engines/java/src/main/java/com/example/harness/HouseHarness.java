package com.example.harness;

import com.example.flowhooks.HouseFlows;
import com.example.flowhooks.Outbox;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import org.h2.jdbcx.JdbcDataSource;

/** A platform: two tables, and a database file that outlives the process. */
public final class HouseHarness implements Console.Engine {

    private final JdbcDataSource dataSource;
    private final HouseFlows flows;

    private HouseHarness(JdbcDataSource dataSource, HouseFlows flows) {
        this.dataSource = dataSource;
        this.flows = flows;
    }

    public static void main(String[] arguments) throws Exception {
        JdbcDataSource dataSource = new JdbcDataSource();
        // Without the delay of half a second that H2 has, a commit is in the file.
        dataSource.setURL("jdbc:h2:file:" + arguments[0] + ";DB_CLOSE_DELAY=-1;WRITE_DELAY=0");
        Console.prepare(dataSource);
        if (!Console.exists(dataSource, "HOUSE_FLOW")) {
            Console.run(dataSource, "/house.sql");
        }
        try (Outbox outbox = new Outbox(dataSource, Console.client())) {
            outbox.start();
            Console.serve(new HouseHarness(dataSource, new HouseFlows(dataSource, outbox)), dataSource, outbox);
        }
    }

    @Override
    public String start(String key, String businessKey, Map<String, Object> variables) throws SQLException {
        String id = UUID.randomUUID().toString();
        try (Connection connection = dataSource.getConnection();
                PreparedStatement insert = connection.prepareStatement(
                        "INSERT INTO house_flow SELECT ?, id, ?, ?, 'running' FROM house_definition"
                                + " WHERE definition_key = ?")) {
            insert.setString(1, id);
            insert.setString(2, businessKey);
            insert.setString(3, (String) variables.get("callBackProcessClass"));
            insert.setString(4, key);
            insert.executeUpdate();
        }
        return id;
    }

    @Override
    public void complete(String instanceId, Map<String, Object> variables) throws SQLException {
        flows.complete(instanceId, (String) variables.get("decision"));
    }

    @Override
    public void completeWithoutCommit(String instanceId) throws SQLException {
        try (Connection connection = dataSource.getConnection()) {
            connection.setAutoCommit(false);
            try {
                flows.end(connection, instanceId, null);
                throw new Console.Refusal(connection);
            } finally {
                connection.rollback();
            }
        }
    }

    @Override
    public void cancel(String instanceId) throws SQLException {
        try (Connection connection = dataSource.getConnection();
                PreparedStatement update = connection.prepareStatement(
                        "UPDATE house_flow SET state = 'cancelled' WHERE id = ?")) {
            update.setString(1, instanceId);
            update.executeUpdate();
        }
    }

    /** Two users end one flow at once: the second one waits for the transaction of the first one. */
    @Override
    public void act(String name, String instanceId, String conclusion) throws Exception {
        if (!name.equals("complete-twice")) {
            throw new UnsupportedOperationException(name);
        }
        FutureTask<Void> second = new FutureTask<>(() -> {
            flows.complete(instanceId, conclusion);
            return null;
        });
        try (Connection first = dataSource.getConnection()) {
            first.setAutoCommit(false);
            flows.end(first, instanceId, "first");
            new Thread(second).start();
            while (!waiting() && !second.isDone()) {
                Thread.sleep(10);
            }
            first.commit();
        }
        second.get(30, TimeUnit.SECONDS);
    }

    private boolean waiting() throws SQLException {
        try (Connection connection = dataSource.getConnection();
                Statement statement = connection.createStatement();
                ResultSet found = statement.executeQuery(
                        "SELECT 1 FROM INFORMATION_SCHEMA.SESSIONS WHERE BLOCKER_ID IS NOT NULL")) {
            return found.next();
        }
    }

    @Override
    public long running() throws SQLException {
        try (Connection connection = dataSource.getConnection();
                Statement statement = connection.createStatement();
                ResultSet counted = statement.executeQuery("SELECT COUNT(*) FROM house_flow WHERE state = 'running'")) {
            counted.next();
            return counted.getLong(1);
        }
    }
}
