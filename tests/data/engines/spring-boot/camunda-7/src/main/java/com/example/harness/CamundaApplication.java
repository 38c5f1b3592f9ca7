package com.example.harness;

import com.example.flowhooks.Outbox;
import java.util.Map;
import javax.sql.DataSource;
import org.camunda.bpm.engine.ProcessEngine;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.jdbc.datasource.DataSourceUtils;
import org.springframework.transaction.PlatformTransactionManager;
import org.springframework.transaction.support.TransactionTemplate;

/** An application with the starter, and with the classes of the pages. */
@SpringBootApplication(scanBasePackages = "com.example.flowhooks")
public class CamundaApplication implements Console.Engine {

    private final ProcessEngine engine;
    private final DataSource dataSource;
    private final TransactionTemplate transaction;

    CamundaApplication(ProcessEngine engine, DataSource dataSource, PlatformTransactionManager transactions) {
        this.engine = engine;
        this.dataSource = dataSource;
        this.transaction = new TransactionTemplate(transactions);
    }

    public static void main(String[] arguments) throws Exception {
        try (ConfigurableApplicationContext context = SpringApplication.run(CamundaApplication.class)) {
            CamundaApplication application = context.getBean(CamundaApplication.class);
            application.engine.getRepositoryService().createDeployment().addClasspathResource("contract.bpmn").deploy();
            Console.serve(application, context.getBean(DataSource.class), context.getBean(Outbox.class));
        }
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
