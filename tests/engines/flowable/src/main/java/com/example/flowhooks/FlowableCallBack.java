package com.example.flowhooks;

import java.sql.SQLException;
import java.util.Set;
import org.flowable.common.engine.api.FlowableException;
import org.flowable.common.engine.api.delegate.event.FlowableEngineEntityEvent;
import org.flowable.common.engine.api.delegate.event.FlowableEngineEventType;
import org.flowable.common.engine.impl.cfg.TransactionState;
import org.flowable.common.engine.impl.context.Context;
import org.flowable.engine.RepositoryService;
import org.flowable.engine.delegate.DelegateExecution;
import org.flowable.engine.delegate.event.AbstractFlowableEngineEventListener;
import org.flowable.engine.impl.util.CommandContextUtil;
import org.flowable.engine.repository.ProcessDefinition;

/** Puts the call-back of each process instance that completes normally into the outbox, in Flowable's transaction. */
public final class FlowableCallBack extends AbstractFlowableEngineEventListener {

    private final Outbox outbox;

    public FlowableCallBack(Outbox outbox) {
        super(Set.of(FlowableEngineEventType.PROCESS_COMPLETED));
        this.outbox = outbox;
    }

    @Override
    protected void processCompleted(FlowableEngineEntityEvent event) {
        DelegateExecution instance = (DelegateExecution) event.getEntity();
        RepositoryService repository = CommandContextUtil.getProcessEngineConfiguration().getRepositoryService();
        ProcessDefinition definition = repository.getProcessDefinition(instance.getProcessDefinitionId());
        CallBack callBack = new CallBack(instance.getProcessInstanceId())
                .with("businessKey", instance.getProcessInstanceBusinessKey())
                .with("callBackProcessClass", instance.getVariable("callBackProcessClass"))
                .with("processDefinitionId", definition.getId())
                .with("processDefinitionKey", definition.getKey())
                .with("processDefinitionVersion", definition.getVersion());
        try {
            outbox.add(CommandContextUtil.getDbSqlSession().getSqlSession().getConnection(), callBack);
        } catch (SQLException error) { // then the instance does not end either, and whoever ended it learns why
            throw new FlowableException("The call-back of " + callBack.flowInstanceId + " was not written", error);
        }
        Context.getTransactionContext()
                .addTransactionListener(TransactionState.COMMITTED, commandContext -> outbox.wake());
    }
}
