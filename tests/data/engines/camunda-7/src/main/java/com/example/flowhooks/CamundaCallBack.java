package com.example.flowhooks;

import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import org.camunda.bpm.engine.ProcessEngineException;
import org.camunda.bpm.engine.delegate.DelegateExecution;
import org.camunda.bpm.engine.delegate.ExecutionListener;
import org.camunda.bpm.engine.impl.bpmn.parser.AbstractBpmnParseListener;
import org.camunda.bpm.engine.impl.bpmn.parser.BpmnParseListener;
import org.camunda.bpm.engine.impl.cfg.AbstractProcessEnginePlugin;
import org.camunda.bpm.engine.impl.cfg.ProcessEngineConfigurationImpl;
import org.camunda.bpm.engine.impl.cfg.TransactionState;
import org.camunda.bpm.engine.impl.context.Context;
import org.camunda.bpm.engine.impl.interceptor.CommandContext;
import org.camunda.bpm.engine.impl.persistence.entity.ExecutionEntity;
import org.camunda.bpm.engine.impl.persistence.entity.ProcessDefinitionEntity;
import org.camunda.bpm.engine.impl.util.xml.Element;
import org.camunda.bpm.model.bpmn.instance.ExtensionElements;
import org.camunda.bpm.model.bpmn.instance.Process;
import org.camunda.bpm.model.bpmn.instance.camunda.CamundaProperties;
import org.camunda.bpm.model.bpmn.instance.camunda.CamundaProperty;

/** Puts the callback of each process instance that completes into the outbox, in Camunda's transaction. */
public final class CamundaCallBack extends AbstractProcessEnginePlugin implements ExecutionListener {

    private static final String CLASS = "callBackProcessClass";
    private static final String CONCLUSION = "conclusion";

    private final Outbox outbox;
    private final boolean includeCalled;

    /** Sends callbacks for instances that were not started by a call activity. */
    public CamundaCallBack(Outbox outbox) {
        this(outbox, false);
    }

    /** @param includeCalled whether to send callbacks for instances that a call activity started, too */
    public CamundaCallBack(Outbox outbox, boolean includeCalled) {
        this.outbox = outbox;
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
        if (execution.isCanceled() || called && !includeCalled) {
            return;
        }
        ProcessDefinitionEntity definition = ((ExecutionEntity) execution).getProcessDefinition();
        CallBack callBack = new CallBack(execution.getProcessInstanceId())
                .with("businessKey", execution.getProcessBusinessKey())
                .withCallBackProcessClass(callBackClass(execution, called, definition.getKey()))
                .withConclusion(conclusion(execution, called))
                .with("processDefinitionId", definition.getId())
                .with("processDefinitionKey", definition.getKey())
                .with("processDefinitionVersion", definition.getVersion());
        CommandContext commandContext = Context.getCommandContext();
        try {
            outbox.add(commandContext.getDbSqlSession().getSqlSession().getConnection(), callBack);
        } catch (SQLException error) { // then the instance does not end, and the caller receives the exception
            throw new ProcessEngineException("The callback of " + callBack.flowInstanceId + " was not written", error);
        }
        commandContext.getTransactionContext()
                .addTransactionListener(TransactionState.COMMITTED, committed -> outbox.wake());
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
