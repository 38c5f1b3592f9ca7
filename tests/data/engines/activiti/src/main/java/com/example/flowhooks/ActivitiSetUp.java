package com.example.flowhooks;

import java.util.List;
import javax.sql.DataSource;
import org.activiti.engine.ProcessEngine;
import org.activiti.engine.ProcessEngineConfiguration;
import org.activiti.engine.impl.cfg.StandaloneProcessEngineConfiguration;
import org.activiti.engine.impl.persistence.StrongUuidGenerator;

/** Connects the parts when the application starts. */
public final class ActivitiSetUp {

    private ActivitiSetUp() {}

    /** Starts an engine on the data source whose database also has the table of the outbox. */
    public static ProcessEngine start(DataSource dataSource, Outbox outbox, ActivitiCallBack callBack) {
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
