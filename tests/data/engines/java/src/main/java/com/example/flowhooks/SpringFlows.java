package com.example.flowhooks;

import java.sql.SQLException;
import javax.sql.DataSource;
import org.springframework.jdbc.datasource.DataSourceUtils;
import org.springframework.transaction.support.TransactionSynchronization;
import org.springframework.transaction.support.TransactionSynchronizationManager;

/** The same with Spring: called in a method that is {@code @Transactional}. */
public final class SpringFlows {

    private final DataSource dataSource;
    private final Outbox outbox;

    public SpringFlows(DataSource dataSource, Outbox outbox) {
        this.dataSource = dataSource;
        this.outbox = outbox;
    }

    /** Writes the callback in the open transaction, and wakes the sender after the commit. */
    public void callBack(CallBack callBack) throws SQLException {
        if (!TransactionSynchronizationManager.isActualTransactionActive()) {
            throw new IllegalStateException("A callback is written in the transaction that ends the flow");
        }
        outbox.add(DataSourceUtils.getConnection(dataSource), callBack);
        TransactionSynchronizationManager.registerSynchronization(new TransactionSynchronization() {
            @Override
            public void afterCommit() {
                outbox.wake();
            }
        });
    }
}
