package com.example.flowhooks;

import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import org.camunda.bpm.engine.ActivityTypes;
import org.camunda.bpm.engine.ProcessEngineException;
import org.camunda.bpm.engine.delegate.DelegateExecution;
import org.camunda.bpm.engine.delegate.ExecutionListener;
import org.camunda.bpm.engine.impl.bpmn.helper.BpmnProperties;
import org.camunda.bpm.engine.impl.bpmn.parser.AbstractBpmnParseListener;
import org.camunda.bpm.engine.impl.bpmn.parser.BpmnParseListener;
import org.camunda.bpm.engine.impl.cfg.AbstractProcessEnginePlugin;
import org.camunda.bpm.engine.impl.cfg.ProcessEngineConfigurationImpl;
import org.camunda.bpm.engine.impl.cfg.TransactionState;
import org.camunda.bpm.engine.impl.context.Context;
import org.camunda.bpm.engine.impl.history.event.HistoricProcessInstanceEventEntity;
import org.camunda.bpm.engine.impl.interceptor.CommandContext;
import org.camunda.bpm.engine.impl.persistence.entity.ExecutionEntity;
import org.camunda.bpm.engine.impl.persistence.entity.ProcessDefinitionEntity;
import org.camunda.bpm.engine.impl.pvm.process.ActivityImpl;
import org.camunda.bpm.engine.impl.util.xml.Element;
import org.camunda.bpm.model.bpmn.instance.ExtensionElements;
import org.camunda.bpm.model.bpmn.instance.Process;
import org.camunda.bpm.model.bpmn.instance.camunda.CamundaProperties;
import org.camunda.bpm.model.bpmn.instance.camunda.CamundaProperty;

/** Puts the callback of each process instance that ends into the outbox, in Camunda's transaction. */
public final class CamundaCallBack extends AbstractProcessEnginePlugin implements ExecutionListener {

    private static final String CLASS = "callBackProcessClass";
    private static final String CONCLUSION = "conclusion";

    private final Outbox outbox;
    private final Set<String> kinds;
    private final boolean includeCalled;

    /** Sends callbacks for instances that complete normally and were not started by a call activity. */
    public CamundaCallBack(Outbox outbox) {
        this(outbox, Set.of("complete"), false);
    }

    /**
     * @param kinds which ends send a callback: complete, cancel, error or terminate
     * @param includeCalled whether to send callbacks for instances that a call activity started, too
     */
    public CamundaCallBack(Outbox outbox, Set<String> kinds, boolean includeCalled) {
        this.outbox = outbox;
        this.kinds = kinds;
        this.includeCalled = includeCalled;
    }

    /** The engine plugin: adds a listener to the end of every process. */
    @Override
    public void preInit(ProcessEngineConfigurationImpl configuration) {
        List<BpmnParseListener> listeners = configuration.getCustomPostBPMNParseListeners();
        if (listeners == null) {
            listeners = new ArrayList<>();
            configuration.setCustomPostBPMNParseListeners(listeners);
        }
        listeners.add(new AbstractBpmnParseListener() {
            @Override
            public void parseProcess(Element element, ProcessDefinitionEntity definition) {
                definition.addListener(ExecutionListener.EVENTNAME_END, CamundaCallBack.this);
            }
        });
    }

    /** The listener: called when a process instance ends, including when it is cancelled. */
    @Override
    public void notify(DelegateExecution execution) {
        boolean called = execution.getSuperExecution() != null;
        String kind = kind(execution);
        if (!kinds.contains(kind) || called && !includeCalled) {
            return;
        }
        ProcessDefinitionEntity definition = ((ExecutionEntity) execution).getProcessDefinition();
        CommandContext commandContext = Context.getCommandContext();
        HistoricProcessInstanceEventEntity history = commandContext.getHistoricProcessInstanceManager()
                .findHistoricProcessInstanceEvent(execution.getProcessInstanceId()); // null at history level none
        CallBack callBack = new CallBack(kind, execution.getProcessInstanceId())
                .with("businessKey", execution.getProcessBusinessKey())
                .withCallBackProcessClass(callBackClass(execution, called, definition.getKey()))
                .withConclusion(conclusion(execution, called))
                .with("parentInstanceId", called ? execution.getSuperExecution().getProcessInstanceId() : null)
                .with("processDefinitionId", definition.getId())
                .with("processDefinitionKey", definition.getKey())
                .with("processDefinitionVersion", definition.getVersion())
                .withStartTime(history == null ? null : history.getStartTime())
                .withTenantId(execution.getTenantId())
                .with("versionTag", definition.getVersionTag());
        try {
            outbox.add(commandContext.getDbSqlSession().getSqlSession().getConnection(), callBack);
        } catch (SQLException error) { // then the instance does not end, and the caller receives the exception
            throw new ProcessEngineException("The callback of " + callBack.flowInstanceId + " was not written", error);
        }
        commandContext.getTransactionContext()
                .addTransactionListener(TransactionState.COMMITTED, committed -> outbox.wake());
    }

    /** How the instance ended: cancelled, at an error or a terminate end event, or normally. */
    private static String kind(DelegateExecution execution) {
        if (execution.isCanceled()) {
            return "cancel";
        }
        ActivityImpl last = ((ExecutionEntity) execution).getActivity();
        if (last == null) {
            return "complete";
        }
        String type = last.getProperties().get(BpmnProperties.TYPE);
        if (ActivityTypes.END_EVENT_TERMINATE.equals(type)) {
            return "terminate";
        }
        // An activity with a way out is the last one if it threw a BPMN error that nothing catches.
        boolean failed = ActivityTypes.END_EVENT_ERROR.equals(type) || !last.getOutgoingTransitions().isEmpty();
        return failed ? "error" : "complete";
    }

    /** The variable, unless it may be the caller's; otherwise the end event. */
    private static Object conclusion(DelegateExecution execution, boolean called) {
        Object variable = called ? null : execution.getVariable(CONCLUSION);
        return variable == null ? execution.getCurrentActivityId() : variable;
    }

    /** The variable, unless it may be the caller's; otherwise the extension property of the process. */
    private static Object callBackClass(DelegateExecution execution, boolean called, String key) {
        if (!called && execution.hasVariable(CLASS)) {
            return execution.getVariable(CLASS);
        }
        Process process = execution.getBpmnModelInstance().getModelElementById(key);
        ExtensionElements extensions = process.getExtensionElements();
        if (extensions == null) {
            return null;
        }
        return extensions.getElementsQuery().filterByType(CamundaProperties.class).list().stream()
                .flatMap(properties -> properties.getCamundaProperties().stream())
                .filter(property -> CLASS.equals(property.getCamundaName()))
                .findFirst()
                .map(CamundaProperty::getCamundaValue)
                .orElse(null);
    }
}
