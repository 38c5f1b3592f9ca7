package com.example.harness;

import java.util.Map;
import javax.sql.DataSource;
import org.flowable.engine.ProcessEngine;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.transaction.PlatformTransactionManager;

/** An application with the starter alone: its diagrams have the HTTP task. */
@SpringBootApplication(scanBasePackages = "com.example.nothing")
public class HttpTaskApplication extends FlowableEngine {

    HttpTaskApplication(ProcessEngine engine, DataSource dataSource, PlatformTransactionManager transactions) {
        super(engine, dataSource, transactions);
    }

    public static void main(String[] arguments) throws Exception {
        try (ConfigurableApplicationContext context = SpringApplication.run(HttpTaskApplication.class)) {
            HttpTaskApplication application = context.getBean(HttpTaskApplication.class);
            application.deploy("http-task.bpmn20.xml");
            Console.prepare(context.getBean(DataSource.class)); // it stays empty
            Console.serve(application, context.getBean(DataSource.class), null);
        }
    }

    @Override
    public String start(String key, String businessKey, Map<String, Object> variables) {
        if (key.equals("failed jobs")) {
            return String.valueOf(engine.getManagementService().createTimerJobQuery().withException().count());
        }
        return super.start(key, businessKey, variables);
    }
}
