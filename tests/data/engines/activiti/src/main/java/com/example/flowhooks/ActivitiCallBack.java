package com.example.flowhooks;

import java.sql.SQLException;
import java.util.Set;
import org.activiti.bpmn.model.ValuedDataObject;
import org.activiti.engine.ActivitiException;
import org.activiti.engine.RepositoryService;
import org.activiti.engine.delegate.event.ActivitiCancelledEvent;
import org.activiti.engine.delegate.event.ActivitiEntityEvent;
import org.activiti.engine.delegate.event.ActivitiEvent;
import org.activiti.engine.delegate.event.ActivitiEventListener;
import org.activiti.engine.impl.cfg.TransactionState;
import org.activiti.engine.impl.context.Context;
import org.activiti.engine.impl.persistence.entity.ExecutionEntity;
import org.activiti.engine.repository.ProcessDefinition;

/** Puts the callback of each process instance that ends into the outbox, in Activiti's transaction. */
public final class ActivitiCallBack implements ActivitiEventListener {

    private static final String CLASS = "callBackProcessClass";
    private static final String CONCLUSION = "conclusion";

    private final Outbox outbox;
    private final Set<String> kinds;
    private final boolean includeCalled;

    /** Sends callbacks for instances that complete normally and were not started by a call activity. */
    public ActivitiCallBack(Outbox outbox) {
        this(outbox, Set.of("complete"), false);
    }

    /**
     * @param kinds which ends send a callback: complete, cancel, error or terminate
     * @param includeCalled whether to send callbacks for instances that a call activity started, too
     */
    public ActivitiCallBack(Outbox outbox, Set<String> kinds, boolean includeCalled) {
        this.outbox = outbox;
        this.kinds = kinds;
        this.includeCalled = includeCalled;
    }

    @Override
    public void onEvent(ActivitiEvent event) {
        String kind = kind(event);
        if (!kinds.contains(kind)) {
            return;
        }
        ExecutionEntity instance = event instanceof ActivitiEntityEvent
                ? (ExecutionEntity) ((ActivitiEntityEvent) event).getEntity()
                : Context.getCommandContext().getExecutionEntityManager().findById(event.getProcessInstanceId());
        boolean called = instance.getSuperExecutionId() != null;
        if (called && !includeCalled) {
            return;
        }
        RepositoryService repository = Context.getProcessEngineConfiguration().getRepositoryService();
        ProcessDefinition definition = repository.getProcessDefinition(instance.getProcessDefinitionId());
        CallBack callBack = new CallBack(kind, instance.getProcessInstanceId())
                .with("businessKey", instance.getProcessInstanceBusinessKey())
                .withCallBackProcessClass(called ? declaredClass(definition, repository) : instance.getVariable(CLASS))
                .withConclusion(called ? null : instance.getVariable(CONCLUSION))
                .with("parentInstanceId", called ? instance.getSuperExecution().getProcessInstanceId() : null)
                .with("processDefinitionId", definition.getId())
                .with("processDefinitionKey", definition.getKey())
                .with("processDefinitionVersion", definition.getVersion())
                .withStartTime(instance.getStartTime())
                .withTenantId(instance.getTenantId());
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

    /** How the instance ended; an empty text for all other events. */
    private static String kind(ActivitiEvent event) {
        switch (event.getType()) {
            case PROCESS_COMPLETED:
                return "complete";
            case PROCESS_COMPLETED_WITH_ERROR_END_EVENT:
                return "error";
            case PROCESS_CANCELLED: // by a deletion, whose cause is a text, or at a terminate end event
                return ((ActivitiCancelledEvent) event).getCause() instanceof String ? "cancel" : "terminate";
            default:
                return "";
        }
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
