package com.example.flowhooks;

import java.sql.SQLException;
import org.activiti.bpmn.model.ValuedDataObject;
import org.activiti.engine.ActivitiException;
import org.activiti.engine.RepositoryService;
import org.activiti.engine.delegate.event.ActivitiEntityEvent;
import org.activiti.engine.delegate.event.ActivitiEvent;
import org.activiti.engine.delegate.event.ActivitiEventListener;
import org.activiti.engine.delegate.event.ActivitiEventType;
import org.activiti.engine.impl.cfg.TransactionState;
import org.activiti.engine.impl.context.Context;
import org.activiti.engine.impl.persistence.entity.ExecutionEntity;
import org.activiti.engine.repository.ProcessDefinition;

/** Puts the callback of each process instance that completes into the outbox, in Activiti's transaction. */
public final class ActivitiCallBack implements ActivitiEventListener {

    private static final String CLASS = "callBackProcessClass";
    private static final String CONCLUSION = "conclusion";

    private final Outbox outbox;
    private final boolean includeCalled;

    /** Sends callbacks for instances that were not started by a call activity. */
    public ActivitiCallBack(Outbox outbox) {
        this(outbox, false);
    }

    /** @param includeCalled whether to send callbacks for instances that a call activity started, too */
    public ActivitiCallBack(Outbox outbox, boolean includeCalled) {
        this.outbox = outbox;
        this.includeCalled = includeCalled;
    }

    @Override
    public void onEvent(ActivitiEvent event) {
        if (event.getType() != ActivitiEventType.PROCESS_COMPLETED) {
            return;
        }
        ExecutionEntity instance = (ExecutionEntity) ((ActivitiEntityEvent) event).getEntity();
        boolean called = instance.getSuperExecutionId() != null;
        if (called && !includeCalled) {
            return;
        }
        RepositoryService repository = Context.getProcessEngineConfiguration().getRepositoryService();
        ProcessDefinition definition = repository.getProcessDefinition(instance.getProcessDefinitionId());
        CallBack callBack = new CallBack(instance.getProcessInstanceId())
                .with("businessKey", instance.getProcessInstanceBusinessKey())
                .withCallBackProcessClass(called ? declaredClass(definition, repository) : instance.getVariable(CLASS))
                .withConclusion(called ? null : instance.getVariable(CONCLUSION))
                .with("processDefinitionId", definition.getId())
                .with("processDefinitionKey", definition.getKey())
                .with("processDefinitionVersion", definition.getVersion());
        try {
            outbox.add(Context.getCommandContext().getDbSqlSession().getSqlSession().getConnection(), callBack);
        } catch (SQLException error) { // then the instance does not end, and the caller receives the exception
            throw new ActivitiException("The callback of " + callBack.flowInstanceId + " was not written", error);
        }
        Context.getTransactionContext()
                .addTransactionListener(TransactionState.COMMITTED, commandContext -> outbox.wake());
    }

    @Override
    public boolean isFailOnException() {
        return true; // the instance must not end without its callback
    }

    /** The class in the definition. Variables of a called instance may be its caller's, so they are not read. */
    private static Object declaredClass(ProcessDefinition definition, RepositoryService repository) {
        return repository.getBpmnModel(definition.getId()).getProcessById(definition.getKey()).getDataObjects().stream()
                .filter(data -> CLASS.equals(data.getName()))
                .findFirst()
                .map(ValuedDataObject::getValue)
                .orElse(null);
    }
}
