package com.example.flowhooks;

import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import javax.sql.DataSource;

/** Ends the flows of a platform: the state of the flow and its callback are written in one transaction. */
public final class HouseFlows {

    private final DataSource dataSource;
    private final Outbox outbox;

    public HouseFlows(DataSource dataSource, Outbox outbox) {
        this.dataSource = dataSource;
        this.outbox = outbox;
    }

    /** Completes a flow. @param conclusion how it ended, such as "approved" or "rejected" */
    public void complete(String flowInstanceId, String conclusion) throws SQLException {
        try (Connection connection = dataSource.getConnection()) {
            connection.setAutoCommit(false);
            try {
                end(connection, flowInstanceId, conclusion);
                connection.commit();
            } catch (SQLException | RuntimeException error) {
                connection.rollback(); // this removes the callback, too
                throw error;
            }
        }
        outbox.wake(); // now that it is committed
    }

    /** Ends a flow in the transaction of the caller, who has to commit and then call {@link Outbox#wake}. */
    public void end(Connection connection, String flowInstanceId, String conclusion) throws SQLException {
        // This is first: if two users end the flow at once, the second one waits here, and then finds it completed.
        try (PreparedStatement update = connection.prepareStatement(
                "UPDATE house_flow SET state = 'completed' WHERE id = ? AND state = 'running'")) {
            update.setString(1, flowInstanceId);
            if (update.executeUpdate() != 1) {
                throw new IllegalStateException("There is no running flow " + flowInstanceId);
            }
        }
        CallBack callBack = new CallBack(flowInstanceId);
        try (PreparedStatement select = connection.prepareStatement(
                "SELECT f.business_key, COALESCE(f.call_back_class, d.call_back_class), d.id, d.definition_key,"
                        + " d.version FROM house_flow f JOIN house_definition d ON d.id = f.definition_id"
                        + " WHERE f.id = ?")) {
            select.setString(1, flowInstanceId);
            try (ResultSet flow = select.executeQuery()) {
                if (!flow.next()) {
                    throw new IllegalStateException("There is no definition of the flow " + flowInstanceId);
                }
                callBack.with("businessKey", flow.getString(1))
                        .withCallBackProcessClass(flow.getString(2))
                        .withConclusion(conclusion)
                        .with("processDefinitionId", flow.getString(3))
                        .with("processDefinitionKey", flow.getString(4))
                        .with("processDefinitionVersion", flow.getInt(5));
            }
        }
        outbox.add(connection, callBack);
    }
}
