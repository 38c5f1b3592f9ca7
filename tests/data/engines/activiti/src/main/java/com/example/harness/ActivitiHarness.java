package com.example.harness;

import com.example.flowhooks.ActivitiCallBack;
import com.example.flowhooks.ActivitiSetUp;
import com.example.flowhooks.Outbox;
import java.util.Map;
import java.util.Set;
import org.activiti.engine.ProcessEngine;
import org.activiti.engine.RuntimeService;
import org.activiti.engine.impl.cfg.TransactionState;
import org.activiti.engine.impl.context.Context;
import org.h2.jdbcx.JdbcDataSource;

/** An Activiti engine on an H2 database in memory. */
public final class ActivitiHarness implements Console.Engine {

    private final ProcessEngine engine;

    private ActivitiHarness(ProcessEngine engine) {
        this.engine = engine;
    }

    public static void main(String[] arguments) throws Exception {
        JdbcDataSource dataSource = new JdbcDataSource();
        dataSource.setURL("jdbc:h2:mem:engine;DB_CLOSE_DELAY=-1");
        Console.prepare(dataSource);
        try (Outbox outbox = new Outbox(dataSource, Console.client())) {
            boolean all = arguments[0].equals("all-ends");
            Set<String> kinds = all ? Set.of("complete", "cancel", "error", "terminate") : Set.of("complete");
            ProcessEngine engine = ActivitiSetUp.start(dataSource, outbox, new ActivitiCallBack(outbox, kinds, all));
            engine.getRepositoryService().createDeployment().addClasspathResource("contract.bpmn20.xml").deploy();
            Console.serve(new ActivitiHarness(engine), dataSource, outbox);
            engine.close();
        }
    }

    @Override
    public String start(String key, String businessKey, Map<String, Object> variables) {
        return engine.getRuntimeService().startProcessInstanceByKey(key, businessKey, variables).getId();
    }

    @Override
    public String start(String key, String businessKey, String tenant) {
        return engine.getRuntimeService()
                .startProcessInstanceByKeyAndTenantId(key, businessKey, Map.of(), tenant).getId();
    }

    @Override
    public void complete(String instanceId, Map<String, Object> variables) {
        String task = engine.getTaskService().createTaskQuery().processInstanceId(instanceId).list().get(0).getId();
        engine.getTaskService().complete(task, variables);
    }

    @Override
    public String called(String instanceId) {
        return engine.getRuntimeService().createProcessInstanceQuery()
                .superProcessInstanceId(instanceId).singleResult().getId();
    }

    @Override
    public void act(String name, String instanceId, String argument) {
        RuntimeService runtime = engine.getRuntimeService();
        switch (name) {
            case "deploy": // for a tenant, in the place of the instance
                engine.getRepositoryService().createDeployment()
                        .tenantId(instanceId).addString("tenant.bpmn20.xml", argument).deploy();
                break;
            case "withdraw":
                runtime.messageEventReceived("withdrawn", runtime.createExecutionQuery()
                        .processInstanceId(instanceId).messageEventSubscriptionName("withdrawn").singleResult().getId());
                break;
            default:
                throw new UnsupportedOperationException(name);
        }
    }

    @Override
    public void completeWithoutCommit(String instanceId) {
        engine.getManagementService().executeCommand(commandContext -> {
            complete(instanceId, Map.of());
            Context.getTransactionContext().addTransactionListener(TransactionState.COMMITTING, committing -> {
                throw new Console.Refusal(
                        Context.getCommandContext().getDbSqlSession().getSqlSession().getConnection());
            });
            return null;
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
