package com.example.harness;

import com.example.flowhooks.FlowhooksWorker;
import io.camunda.client.CamundaClient;
import java.net.URI;
import java.time.Duration;

/** A job worker that runs until the end of standard input. */
public final class Camunda8Harness {

    private Camunda8Harness() {}

    public static void main(String[] arguments) throws Exception {
        try (CamundaClient client = CamundaClient.newClientBuilder()
                .restAddress(URI.create(System.getenv("CAMUNDA_URL")))
                .preferRestOverGrpc(true)
                .build()) {
            client.newWorker()
                    .jobType("flowhooks-callback")
                    .handler(new FlowhooksWorker(Console.client()))
                    .pollInterval(Duration.ofMillis(50))
                    .open();
            while (System.in.read() >= 0) {}
        }
    }
}
