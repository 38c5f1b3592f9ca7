package com.example.flowhooks;

import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;

/** Sends one call-back to flowhooks, and says what its answer means. */
public final class FlowhooksClient {

    /** What to do next: DONE: nothing. AGAIN: send the same body again. WRONG: show it to somebody. */
    public enum Next { DONE, AGAIN, WRONG }

    /** An answer: what to do next, how many seconds to wait at least before that, and what flowhooks said. */
    public static final class Answer {
        public final Next next;
        public final long waitSeconds;
        public final String said;

        Answer(Next next, long waitSeconds, String said) {
            this.next = next;
            this.waitSeconds = waitSeconds;
            this.said = said;
        }
    }

    private final HttpClient http = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1) // do not offer HTTP/2 on every connection
            .connectTimeout(Duration.ofSeconds(5))
            .build();
    private final String url;
    private final String token;

    /** @param url such as https://flowhooks.example:8443; @param token of this engine, or null without sources */
    public FlowhooksClient(String url, String token) {
        this.url = url;
        this.token = token;
    }

    /** Sends the call-back; a connection that fails or takes too long is an answer too. */
    public Answer send(String flowInstanceId, String json) throws InterruptedException {
        String id = URLEncoder.encode(flowInstanceId, StandardCharsets.UTF_8);
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url + "/flow/" + id + "/call-back/complete"))
                .timeout(Duration.ofSeconds(15))
                .header("Content-Type", "application/json; charset=utf-8")
                .header("Prefer", "respond-async") // nobody here waits for the handlers
                .POST(BodyPublishers.ofString(json, StandardCharsets.UTF_8));
        if (token != null) {
            request.header("Authorization", "Bearer " + token);
        }
        try {
            return read(http.send(request.build(), BodyHandlers.ofString(StandardCharsets.UTF_8)));
        } catch (IOException error) { // refused, cut, or no answer in time: it may be stored, or not
            return new Answer(Next.AGAIN, 0, error.toString());
        }
    }

    private static Answer read(HttpResponse<String> response) {
        int status = response.statusCode();
        String said = status + " " + response.body();
        boolean stored = response.headers().firstValue("Flowhooks-Event").isPresent();
        if (status / 100 == 2 || status == 500 && stored) { // 500 with the id of the event: stored, a handler failed
            return new Answer(Next.DONE, 0, said);
        }
        if (status >= 500 || status == 408 || status == 429) {
            String after = response.headers().firstValue("Retry-After").orElse("");
            return new Answer(Next.AGAIN, after.matches("\\d{1,6}") ? Long.parseLong(after) : 0, said);
        }
        return new Answer(Next.WRONG, 0, said);
    }
}
