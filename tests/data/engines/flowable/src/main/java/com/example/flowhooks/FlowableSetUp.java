package com.example.flowhooks;

import java.util.List;
import javax.sql.DataSource;
import org.flowable.common.engine.impl.persistence.StrongUuidGenerator;
import org.flowable.engine.ProcessEngine;
import org.flowable.engine.ProcessEngineConfiguration;
import org.flowable.engine.impl.cfg.StandaloneProcessEngineConfiguration;

/** Connects the parts when the application starts. */
public final class FlowableSetUp {

    private FlowableSetUp() {}

    /** Starts an engine on the data source whose database also has the table of the outbox. */
    public static ProcessEngine start(DataSource dataSource, Outbox outbox, FlowableCallBack callBack) {
        StandaloneProcessEngineConfiguration configuration = new StandaloneProcessEngineConfiguration();
        configuration.setDataSource(dataSource);
        configuration.setDatabaseSchemaUpdate(ProcessEngineConfiguration.DB_SCHEMA_UPDATE_TRUE);
        configuration.setIdGenerator(new StrongUuidGenerator()); // a new database would use numbers again
        configuration.setEventListeners(List.of(callBack));
        ProcessEngine engine = configuration.buildProcessEngine();
        outbox.start();
        return engine;
    }
}
