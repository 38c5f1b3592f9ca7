package com.example.flowhooks;

import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Sends one callback to flowhooks and interprets the response. */
public final class FlowhooksClient {

    /** DONE: delete the row. AGAIN: send the same body again. WRONG: report it to the administrator. */
    public enum Next { DONE, AGAIN, WRONG }

    /** A response: what to do next, the minimum number of seconds to wait before that, and the text of flowhooks. */
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

    private static final long RESPONSE_SECONDS = 20;

    private final HttpClient http = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1) // do not offer HTTP/2 on every connection
            .connectTimeout(Duration.ofSeconds(5))
            .build();
    private final String url;
    private final String token;

    /** @param url such as https://flowhooks.example:8443; @param token of this engine, or null without sources */
    public FlowhooksClient(String url, String token) {
        this.url = url;
        this.token = token == null || token.isBlank() ? null : token.strip(); // a file's text may end in a newline
    }

    /** Sends the callback. A connection that fails or times out gives an answer, too. */
    public Answer send(String kind, String flowInstanceId, String json) throws InterruptedException {
        String id = URLEncoder.encode(flowInstanceId, StandardCharsets.UTF_8).replace("+", "%20"); // a blank in a path
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url + "/flow/" + id + "/call-back/" + kind))
                .timeout(Duration.ofSeconds(15))
                .header("Content-Type", "application/json; charset=utf-8")
                .header("Prefer", "respond-async") // do not wait for the handlers
                .POST(BodyPublishers.ofString(json, StandardCharsets.UTF_8));
        if (token != null) {
            request.header("Authorization", "Bearer " + token);
        }
        CompletableFuture<HttpResponse<String>> response =
                http.sendAsync(request.build(), BodyHandlers.ofString(StandardCharsets.UTF_8));
        try {
            return read(response.get(RESPONSE_SECONDS, TimeUnit.SECONDS));
        } catch (ExecutionException error) { // refused, broken or timed out: the callback may be stored or not
            return new Answer(Next.AGAIN, 0, error.getCause().toString());
        } catch (TimeoutException error) { // the timeout of the request does not cover the body of the response
            return new Answer(Next.AGAIN, 0, "no whole response within " + RESPONSE_SECONDS + " s");
        } finally {
            response.cancel(true);
        }
    }

    private static Answer read(HttpResponse<String> response) {
        int status = response.statusCode();
        String said = status + " " + response.body();
        boolean stored = response.headers().firstValue("Flowhooks-Event").isPresent();
        if (stored && (status / 100 == 2 || status == 500)) { // 500: stored, but a handler failed
            return new Answer(Next.DONE, 0, said);
        }
        if (status / 100 == 2) { // such as the login page of a proxy
            return new Answer(Next.AGAIN, 0, "HTTP " + status + " without Flowhooks-Event: not answered by flowhooks");
        }
        if (status >= 500 || status == 408 || status == 429) {
            String after = response.headers().firstValue("Retry-After").orElse("");
            return new Answer(Next.AGAIN, after.matches("\\d{1,6}") ? Long.parseLong(after) : 0, said);
        }
        return new Answer(Next.WRONG, 0, said);
    }
}
