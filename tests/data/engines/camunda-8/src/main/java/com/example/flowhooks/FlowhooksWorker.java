package com.example.flowhooks;

import io.camunda.client.api.response.ActivatedJob;
import io.camunda.client.api.worker.JobClient;
import io.camunda.client.api.worker.JobHandler;
import java.time.Duration;
import java.util.Map;

/** Sends the callback of a job to flowhooks, and completes the job when the callback is stored. */
public final class FlowhooksWorker implements JobHandler {

    private static final long SHORTEST_WAIT = 30; // seconds

    private final FlowhooksClient flowhooks;

    public FlowhooksWorker(FlowhooksClient flowhooks) {
        this.flowhooks = flowhooks;
    }

    @Override
    public void handle(JobClient jobs, ActivatedJob job) throws InterruptedException {
        Map<String, Object> variables = job.getVariablesAsMap();
        CallBack callBack = new CallBack(String.valueOf(job.getProcessInstanceKey()))
                .with("businessKey", variables.get("businessKey"))
                .withConclusion(variables.get("conclusion"))
                .with("processDefinitionKey", job.getBpmnProcessId()) // getProcessDefinitionKey() is a number
                .with("processDefinitionVersion", job.getProcessDefinitionVersion());
        FlowhooksClient.Answer answer = flowhooks.send(callBack.kind, callBack.flowInstanceId, callBack.json());
        if (answer.next == FlowhooksClient.Next.DONE) {
            jobs.newCompleteCommand(job).send().join();
            return;
        }
        boolean again = answer.next == FlowhooksClient.Next.AGAIN; // otherwise an incident shows what flowhooks said
        jobs.newFailCommand(job)
                .retries(again ? job.getRetries() : 0)
                .retryBackoff(Duration.ofSeconds(Math.max(answer.waitSeconds, SHORTEST_WAIT)))
                .errorMessage(answer.said)
                .send()
                .join();
    }
}
