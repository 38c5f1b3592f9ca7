package com.example.flowhooks;

import java.sql.SQLException;
import java.util.Set;
import org.flowable.bpmn.model.ValuedDataObject;
import org.flowable.common.engine.api.FlowableException;
import org.flowable.common.engine.api.delegate.event.FlowableEngineEntityEvent;
import org.flowable.common.engine.api.delegate.event.FlowableEngineEventType;
import org.flowable.common.engine.impl.cfg.TransactionState;
import org.flowable.common.engine.impl.context.Context;
import org.flowable.engine.RepositoryService;
import org.flowable.engine.delegate.event.AbstractFlowableEngineEventListener;
import org.flowable.engine.delegate.event.FlowableCancelledEvent;
import org.flowable.engine.impl.persistence.entity.ExecutionEntity;
import org.flowable.engine.impl.util.CommandContextUtil;
import org.flowable.engine.repository.ProcessDefinition;

/** Puts the callback of each process instance that ends into the outbox, in Flowable's transaction. */
public final class FlowableCallBack extends AbstractFlowableEngineEventListener {

    private static final String CLASS = "callBackProcessClass";
    private static final String CONCLUSION = "conclusion";

    private final Outbox outbox;
    private final Set<String> kinds;
    private final boolean includeCalled;

    /** Sends callbacks for instances that complete normally and were not started by a call activity. */
    public FlowableCallBack(Outbox outbox) {
        this(outbox, Set.of("complete"), false);
    }

    /**
     * @param kinds which ends send a callback: complete, cancel, error or terminate
     * @param includeCalled whether to send callbacks for instances that a call activity started, too
     */
    public FlowableCallBack(Outbox outbox, Set<String> kinds, boolean includeCalled) {
        super(Set.of(
                FlowableEngineEventType.PROCESS_COMPLETED,
                FlowableEngineEventType.PROCESS_CANCELLED,
                FlowableEngineEventType.PROCESS_COMPLETED_WITH_ERROR_END_EVENT,
                FlowableEngineEventType.PROCESS_COMPLETED_WITH_TERMINATE_END_EVENT));
        this.outbox = outbox;
        this.kinds = kinds;
        this.includeCalled = includeCalled;
    }

    @Override
    protected void processCompleted(FlowableEngineEntityEvent event) {
        ended("complete", (ExecutionEntity) event.getEntity());
    }

    @Override
    protected void processCancelled(FlowableCancelledEvent event) {
        ended("cancel", CommandContextUtil.getExecutionEntityManager().findById(event.getProcessInstanceId()));
    }

    @Override
    protected void processCompletedWithErrorEnd(FlowableEngineEntityEvent event) {
        ended("error", (ExecutionEntity) event.getEntity());
    }

    @Override
    protected void processCompletedWithTerminateEnd(FlowableEngineEntityEvent event) {
        ended("terminate", (ExecutionEntity) event.getEntity());
    }

    private void ended(String kind, ExecutionEntity instance) {
        boolean called = instance.getSuperExecutionId() != null;
        if (!kinds.contains(kind) || called && !includeCalled) {
            return;
        }
        RepositoryService repository = CommandContextUtil.getProcessEngineConfiguration().getRepositoryService();
        ProcessDefinition definition = repository.getProcessDefinition(instance.getProcessDefinitionId());
        CallBack callBack = new CallBack(kind, instance.getProcessInstanceId())
                .with("businessKey", instance.getProcessInstanceBusinessKey())
                .withCallBackProcessClass(called ? declaredClass(definition, repository) : instance.getVariable(CLASS))
                .withConclusion(conclusion(instance, called))
                .with("parentInstanceId", called ? instance.getSuperExecution().getProcessInstanceId() : null)
                .with("processDefinitionId", definition.getId())
                .with("processDefinitionKey", definition.getKey())
                .with("processDefinitionVersion", definition.getVersion())
                .withStartTime(instance.getStartTime())
                .withTenantId(instance.getTenantId());
        try {
            outbox.add(CommandContextUtil.getDbSqlSession().getSqlSession().getConnection(), callBack);
        } catch (SQLException error) { // then the instance does not end, and the caller receives the exception
            throw new FlowableException("The callback of " + callBack.flowInstanceId + " was not written", error);
        }
        Context.getTransactionContext()
                .addTransactionListener(TransactionState.COMMITTED, commandContext -> outbox.wake());
    }

    /** The class in the definition. Variables of a called instance may be its caller's, so they are not read. */
    private static Object declaredClass(ProcessDefinition definition, RepositoryService repository) {
        return repository.getBpmnModel(definition.getId()).getProcessById(definition.getKey()).getDataObjects().stream()
                .filter(data -> CLASS.equals(data.getName()))
                .findFirst()
                .map(ValuedDataObject::getValue)
                .orElse(null);
    }

    /** The variable, unless it may be the caller's; otherwise the business status. */
    private static Object conclusion(ExecutionEntity instance, boolean called) {
        Object variable = called ? null : instance.getVariable(CONCLUSION);
        return variable == null ? instance.getBusinessStatus() : variable;
    }
}
