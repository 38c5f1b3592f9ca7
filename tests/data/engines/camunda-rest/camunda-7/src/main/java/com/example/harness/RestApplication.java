package com.example.harness;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Date;
import java.util.Map;
import org.camunda.bpm.engine.impl.util.ClockUtil;
import org.camunda.bpm.engine.rest.security.auth.ProcessEngineAuthenticationFilter;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.web.servlet.FilterRegistrationBean;
import org.springframework.context.annotation.Bean;

/** An engine with its REST API and HTTP Basic authentication. Lines on standard input set its clock. */
@SpringBootApplication
public class RestApplication {

    public static void main(String[] args) throws Exception {
        var context = SpringApplication.run(RestApplication.class, args);
        try (var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            System.out.println("{\"ready\": true}");
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                // ["clock", "1767225600000"]: the clock stands still at this time; ["clock", ""]: it runs again.
                String[] words = line.replaceAll("[\\[\\]\" ]", "").split(",", -1);
                if (words[1].isEmpty()) {
                    ClockUtil.reset();
                } else {
                    ClockUtil.setCurrentTime(new Date(Long.parseLong(words[1])));
                }
                System.out.println("{\"clock\": " + ClockUtil.getCurrentTime().getTime() + "}");
            }
        } finally {
            context.close();
        }
    }

    @Bean
    FilterRegistrationBean<ProcessEngineAuthenticationFilter> authentication() {
        var filter = new FilterRegistrationBean<>(new ProcessEngineAuthenticationFilter());
        filter.setInitParameters(Map.of(
                "authentication-provider",
                "org.camunda.bpm.engine.rest.security.auth.impl.HttpBasicAuthenticationProvider"));
        filter.addUrlPatterns("/engine-rest/*");
        return filter;
    }
}
