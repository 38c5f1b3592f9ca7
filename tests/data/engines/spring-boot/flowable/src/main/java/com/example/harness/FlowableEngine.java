package com.example.harness;

import java.util.Map;
import javax.sql.DataSource;
import org.flowable.engine.ProcessEngine;
import org.springframework.jdbc.datasource.DataSourceUtils;
import org.springframework.transaction.PlatformTransactionManager;
import org.springframework.transaction.support.TransactionTemplate;

/** What a test does with the engine of the starter. */
class FlowableEngine implements Console.Engine {

    final ProcessEngine engine;
    private final DataSource dataSource;
    private final TransactionTemplate transaction;

    FlowableEngine(ProcessEngine engine, DataSource dataSource, PlatformTransactionManager transactions) {
        this.engine = engine;
        this.dataSource = dataSource;
        this.transaction = new TransactionTemplate(transactions);
    }

    void deploy(String model) {
        engine.getRepositoryService().createDeployment().addClasspathResource(model).deploy();
    }

    @Override
    public String start(String key, String businessKey, Map<String, Object> variables) {
        return engine.getRuntimeService().startProcessInstanceByKey(key, businessKey, variables).getId();
    }

    @Override
    public void complete(String instanceId, Map<String, Object> variables) {
        String task = engine.getTaskService().createTaskQuery().processInstanceId(instanceId).singleResult().getId();
        engine.getTaskService().complete(task, variables);
    }

    @Override
    public void completeWithoutCommit(String instanceId) {
        transaction.executeWithoutResult(status -> {
            complete(instanceId, Map.of());
            throw new Console.Refusal(DataSourceUtils.getConnection(dataSource));
        });
    }

    @Override
    public void cancel(String instanceId) {
        engine.getRuntimeService().deleteProcessInstance(instanceId, "cancelled by the test");
    }

    @Override
    public long running() {
        return engine.getRuntimeService().createProcessInstanceQuery().count();
    }
}
