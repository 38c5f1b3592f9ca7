package com.example.harness;

import com.example.flowhooks.FlowableCallBack;
import com.example.flowhooks.FlowableSetUp;
import com.example.flowhooks.Outbox;
import java.util.Map;
import java.util.Set;
import org.flowable.common.engine.impl.cfg.TransactionState;
import org.flowable.common.engine.impl.context.Context;
import org.flowable.engine.ProcessEngine;
import org.flowable.engine.RuntimeService;
import org.flowable.engine.impl.util.CommandContextUtil;
import org.h2.jdbcx.JdbcDataSource;

/** A Flowable engine on an H2 database in memory. */
public final class FlowableHarness implements Console.Engine {

    private final ProcessEngine engine;

    private FlowableHarness(ProcessEngine engine) {
        this.engine = engine;
    }

    public static void main(String[] arguments) throws Exception {
        JdbcDataSource dataSource = new JdbcDataSource();
        dataSource.setURL("jdbc:h2:mem:engine;DB_CLOSE_DELAY=-1");
        Console.prepare(dataSource);
        try (Outbox outbox = new Outbox(dataSource, Console.client())) {
            boolean all = arguments[0].equals("all-ends");
            Set<String> kinds = all ? Set.of("complete", "cancel", "error", "terminate") : Set.of("complete");
            ProcessEngine engine = FlowableSetUp.start(dataSource, outbox, new FlowableCallBack(outbox, kinds, all));
            engine.getRepositoryService().createDeployment().addClasspathResource("contract.bpmn20.xml").deploy();
            Console.serve(new FlowableHarness(engine), dataSource, outbox);
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
            case "status":
                runtime.updateBusinessStatus(instanceId, argument);
                break;
            case "withdraw":
                runtime.messageEventReceived("withdrawn", runtime.createExecutionQuery()
                        .processInstanceId(instanceId).messageEventSubscriptionName("withdrawn").singleResult().getId());
                break;
            case "move":
                runtime.createChangeActivityStateBuilder().processInstanceId(instanceId)
                        .moveActivityIdTo(argument, "approved").changeState();
                break;
            case "migrate":
                engine.getRepositoryService().createDeployment().addClasspathResource("contract.bpmn20.xml").deploy();
                engine.getProcessMigrationService().createProcessInstanceMigrationBuilder()
                        .migrateToProcessDefinition(engine.getRepositoryService().createProcessDefinitionQuery()
                                .processDefinitionKey(argument).latestVersion().singleResult().getId())
                        .migrate(instanceId);
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
                throw new Console.Refusal(CommandContextUtil.getDbSqlSession().getSqlSession().getConnection());
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
