package com.example.harness;

import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Date;
import org.flowable.common.engine.impl.runtime.Clock;
import org.flowable.engine.ProcessEngine;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.web.filter.OncePerRequestFilter;

/**
 * Flowable with its REST API behind HTTP Basic authentication, and without code of flowhooks. Arguments are properties
 * of Spring Boot. A test starts and ends instances through the API. By lines on standard input it does what the API cannot:
 * it stops the engine's clock ("stop"), lets it run again ("run"), and sets a business status ("status ID WORD").
 */
@SpringBootApplication
public class RestApplication {

    /** Refuses requests without the credential of the environment. */
    @Bean
    static OncePerRequestFilter basicAuthentication() {
        String expected = "Basic "
                + Base64.getEncoder().encodeToString(System.getenv("REST_CREDENTIAL").getBytes(StandardCharsets.UTF_8));
        return new OncePerRequestFilter() {
            @Override
            protected void doFilterInternal(HttpServletRequest request, HttpServletResponse response, FilterChain chain)
                    throws ServletException, IOException {
                if (expected.equals(request.getHeader("Authorization"))) {
                    chain.doFilter(request, response);
                } else {
                    response.setStatus(HttpServletResponse.SC_UNAUTHORIZED);
                }
            }
        };
    }

    public static void main(String[] arguments) throws IOException {
        try (ConfigurableApplicationContext context = SpringApplication.run(RestApplication.class, arguments)) {
            ProcessEngine engine = context.getBean(ProcessEngine.class);
            Clock clock = engine.getProcessEngineConfiguration().getClock();
            BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            System.out.println("{\"ready\": true}");
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                String[] words = line.split(" ");
                switch (words[0]) {
                    case "stop" -> clock.setCurrentTime(new Date());
                    case "run" -> clock.reset();
                    case "status" -> engine.getRuntimeService().updateBusinessStatus(words[1], words[2]);
                    default -> throw new IllegalArgumentException(line);
                }
                System.out.println("{}");
            }
        }
    }
}
