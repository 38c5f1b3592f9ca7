package com.example.harness;

import com.example.flowhooks.CamundaCallBack;
import com.example.flowhooks.CamundaSetUp;
import com.example.flowhooks.Outbox;
import java.util.Map;
import java.util.Set;
import org.camunda.bpm.engine.ProcessEngine;
import org.camunda.bpm.engine.RuntimeService;
import org.camunda.bpm.engine.delegate.BpmnError;
import org.camunda.bpm.engine.delegate.DelegateExecution;
import org.camunda.bpm.engine.delegate.JavaDelegate;
import org.camunda.bpm.engine.impl.cfg.ProcessEngineConfigurationImpl;
import org.camunda.bpm.engine.impl.cfg.TransactionState;
import org.h2.jdbcx.JdbcDataSource;

/** A Camunda 7 engine on an H2 database in memory. */
public final class CamundaHarness implements Console.Engine {

    /** A service task that throws a BPMN error. */
    public static final class Throwing implements JavaDelegate {
        @Override
        public void execute(DelegateExecution execution) {
            throw new BpmnError("nothing catches this");
        }
    }

    private final ProcessEngine engine;

    private CamundaHarness(ProcessEngine engine) {
        this.engine = engine;
    }

    public static void main(String[] arguments) throws Exception {
        JdbcDataSource dataSource = new JdbcDataSource();
        dataSource.setURL("jdbc:h2:mem:engine;DB_CLOSE_DELAY=-1");
        Console.prepare(dataSource);
        try (Outbox outbox = new Outbox(dataSource, Console.client())) {
            boolean all = arguments[0].equals("all-ends");
            Set<String> kinds = all ? Set.of("complete", "cancel", "error", "terminate") : Set.of("complete");
            ProcessEngine engine = CamundaSetUp.start(dataSource, outbox, new CamundaCallBack(outbox, kinds, all));
            engine.getRepositoryService().createDeployment().addClasspathResource("contract.bpmn").deploy();
            Console.serve(new CamundaHarness(engine), dataSource, outbox);
            engine.close();
        }
    }

    @Override
    public String start(String key, String businessKey, Map<String, Object> variables) {
        return engine.getRuntimeService().startProcessInstanceByKey(key, businessKey, variables).getId();
    }

    @Override
    public String start(String key, String businessKey, String tenant) {
        return engine.getRuntimeService().createProcessInstanceByKey(key)
                .processDefinitionTenantId(tenant).businessKey(businessKey).execute().getId();
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
    @SuppressWarnings("removal") // Operaton will remove a method that Camunda 7 needs
    public void act(String name, String instanceId, String argument) {
        RuntimeService runtime = engine.getRuntimeService();
        switch (name) {
            case "deploy": // for a tenant, in the place of the instance
                engine.getRepositoryService().createDeployment()
                        .tenantId(instanceId).addString("tenant.bpmn", argument).deploy();
                break;
            case "withdraw":
                runtime.createMessageCorrelation("withdrawn").processInstanceId(instanceId).correlate();
                break;
            case "move":
                runtime.createProcessInstanceModification(instanceId)
                        .cancelAllForActivity(argument).startBeforeActivity("approved").execute();
                break;
            case "move-late":
                runtime.createProcessInstanceModification(instanceId)
                        .startBeforeActivity("approved").cancelAllForActivity(argument).execute();
                break;
            case "cancel-silently":
                runtime.deleteProcessInstance(instanceId, "cancelled by the test", true);
                break;
            case "migrate":
                String old = runtime.createProcessInstanceQuery().processInstanceId(instanceId)
                        .singleResult().getProcessDefinitionId();
                engine.getRepositoryService().createDeployment().addClasspathResource("contract.bpmn").deploy();
                String latest = engine.getRepositoryService().createProcessDefinitionQuery()
                        .processDefinitionKey(argument).latestVersion().singleResult().getId();
                runtime.newMigration(runtime.createMigrationPlan(old, latest).mapEqualActivities().build())
                        .processInstanceIds(instanceId).execute();
                break;
            default:
                throw new UnsupportedOperationException(name);
        }
    }

    @Override
    public void completeWithoutCommit(String instanceId) {
        ProcessEngineConfigurationImpl configuration =
                (ProcessEngineConfigurationImpl) engine.getProcessEngineConfiguration();
        configuration.getCommandExecutorTxRequired().execute(commandContext -> {
            complete(instanceId, Map.of());
            commandContext.getTransactionContext().addTransactionListener(TransactionState.COMMITTING, committing -> {
                throw new Console.Refusal(commandContext.getDbSqlSession().getSqlSession().getConnection());
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
