package com.example.harness;

import com.example.flowhooks.Outbox;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import javax.sql.DataSource;
import org.flowable.engine.ProcessEngine;
import org.flowable.engine.delegate.event.AbstractFlowableEngineEventListener;
import org.flowable.common.engine.api.delegate.event.FlowableEngineEntityEvent;
import org.flowable.spring.SpringProcessEngineConfiguration;
import org.flowable.spring.boot.EngineConfigurationConfigurer;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.transaction.PlatformTransactionManager;

/** An application with the starter, with the classes of the pages, and with an event listener of its own. */
@SpringBootApplication(scanBasePackages = "com.example.flowhooks")
public class FlowableApplication extends FlowableEngine {

    private static final List<String> COMPLETED = new ArrayList<>();

    FlowableApplication(ProcessEngine engine, DataSource dataSource, PlatformTransactionManager transactions) {
        super(engine, dataSource, transactions);
    }

    /** A configurer of the application itself, which replaces the listeners. */
    @Bean
    static EngineConfigurationConfigurer<SpringProcessEngineConfiguration> ownListener() {
        return configuration -> configuration.setEventListeners(List.of(new AbstractFlowableEngineEventListener() {
            @Override
            protected void processCompleted(FlowableEngineEntityEvent event) {
                COMPLETED.add(event.getProcessInstanceId());
            }
        }));
    }

    public static void main(String[] arguments) throws Exception {
        try (ConfigurableApplicationContext context = SpringApplication.run(FlowableApplication.class)) {
            FlowableApplication application = context.getBean(FlowableApplication.class);
            application.deploy("contract.bpmn20.xml");
            Console.serve(application, context.getBean(DataSource.class), context.getBean(Outbox.class));
        }
    }

    @Override
    public String start(String key, String businessKey, Map<String, Object> variables) {
        if (key.equals("seen")) { // by the application's own listener
            return String.join(",", COMPLETED);
        }
        if (key.equals("client")) {
            return Clients.call(businessKey, variables);
        }
        return super.start(key, businessKey, variables);
    }
}
