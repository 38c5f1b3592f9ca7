package com.example.flowhooks;

import java.util.List;
import javax.sql.DataSource;
import org.camunda.bpm.engine.ProcessEngine;
import org.camunda.bpm.engine.ProcessEngineConfiguration;
import org.camunda.bpm.engine.impl.cfg.StandaloneProcessEngineConfiguration;
import org.camunda.bpm.engine.impl.persistence.StrongUuidGenerator;

/** Connects the parts when the application starts. */
public final class CamundaSetUp {

    private CamundaSetUp() {}

    /** Starts an engine on the data source whose database also has the table of the outbox. */
    public static ProcessEngine start(DataSource dataSource, Outbox outbox, CamundaCallBack callBack) {
        StandaloneProcessEngineConfiguration configuration = new StandaloneProcessEngineConfiguration();
        configuration.setDataSource(dataSource);
        configuration.setDatabaseSchemaUpdate(ProcessEngineConfiguration.DB_SCHEMA_UPDATE_TRUE);
        configuration.setIdGenerator(new StrongUuidGenerator()); // a new database would use numbers again
        configuration.setProcessEnginePlugins(List.of(callBack));
        ProcessEngine engine = configuration.buildProcessEngine();
        outbox.start();
        return engine;
    }
}
