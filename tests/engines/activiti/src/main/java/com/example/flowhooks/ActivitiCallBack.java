package com.example.flowhooks;

import java.sql.SQLException;
import org.activiti.engine.ActivitiException;
import org.activiti.engine.RepositoryService;
import org.activiti.engine.delegate.DelegateExecution;
import org.activiti.engine.delegate.event.ActivitiEntityEvent;
import org.activiti.engine.delegate.event.ActivitiEvent;
import org.activiti.engine.delegate.event.ActivitiEventListener;
import org.activiti.engine.delegate.event.ActivitiEventType;
import org.activiti.engine.impl.cfg.TransactionState;
import org.activiti.engine.impl.context.Context;
import org.activiti.engine.repository.ProcessDefinition;

/** Puts the call-back of each process instance that completes normally into the outbox, in Activiti's transaction. */
public final class ActivitiCallBack implements ActivitiEventListener {

    private final Outbox outbox;

    public ActivitiCallBack(Outbox outbox) {
        this.outbox = outbox;
    }

    @Override
    public void onEvent(ActivitiEvent event) {
        if (event.getType() != ActivitiEventType.PROCESS_COMPLETED) {
            return;
        }
        DelegateExecution instance = (DelegateExecution) ((ActivitiEntityEvent) event).getEntity();
        RepositoryService repository = Context.getProcessEngineConfiguration().getRepositoryService();
        ProcessDefinition definition = repository.getProcessDefinition(instance.getProcessDefinitionId());
        CallBack callBack = new CallBack(instance.getProcessInstanceId())
                .with("businessKey", instance.getProcessInstanceBusinessKey())
                .with("callBackProcessClass", instance.getVariable("callBackProcessClass"))
                .with("processDefinitionId", definition.getId())
                .with("processDefinitionKey", definition.getKey())
                .with("processDefinitionVersion", definition.getVersion());
        try {
            outbox.add(Context.getCommandContext().getDbSqlSession().getSqlSession().getConnection(), callBack);
        } catch (SQLException error) { // then the instance does not end either, and whoever ended it learns why
            throw new ActivitiException("The call-back of " + callBack.flowInstanceId + " was not written", error);
        }
        Context.getTransactionContext()
                .addTransactionListener(TransactionState.COMMITTED, commandContext -> outbox.wake());
    }

    @Override
    public boolean isFailOnException() {
        return true; // without its call-back the instance must not end
    }
}
