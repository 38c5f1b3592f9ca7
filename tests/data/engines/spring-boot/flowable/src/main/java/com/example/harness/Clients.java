package com.example.harness;

import com.example.flowhooks.FlowhooksError;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import feign.Feign;
import feign.FeignException;
import feign.Headers;
import feign.Param;
import feign.RequestLine;
import feign.Response;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.springframework.http.ResponseEntity;
import org.springframework.web.client.ResourceAccessException;
import org.springframework.web.client.RestClient;
import org.springframework.web.client.RestClientResponseException;
import org.springframework.web.client.RestTemplate;
import org.springframework.web.reactive.function.client.WebClient;
import org.springframework.web.reactive.function.client.WebClientRequestException;
import org.springframework.web.reactive.function.client.WebClientResponseException;

/** Sends a callback with the clients that applications use, and tells what they threw. */
final class Clients {

    /** A client that Feign makes. */
    interface Callbacks {
        @RequestLine("POST /flow/{id}/call-back/complete")
        @Headers({"Content-Type: application/json", "Authorization: Bearer {token}"})
        Response response(@Param("id") String id, @Param("token") String token, String body);

        @RequestLine("POST /flow/{id}/call-back/complete")
        @Headers({"Content-Type: application/json", "Authorization: Bearer {token}"})
        String body(@Param("id") String id, @Param("token") String token, String body);
    }

    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String TOKEN = System.getenv("FLOWHOOKS_TOKEN");

    private Clients() {}

    /** Calls with the client, the URL and the body that are given; JSON. */
    static String call(String id, Map<String, Object> given) {
        String url = (String) given.get("url");
        String path = url + "/flow/" + id + "/call-back/complete";
        Object body = given.get("body");
        Map<String, Object> said = new LinkedHashMap<>();
        try {
            String text = JSON.writeValueAsString(body.equals("a list") ? Map.of("businessKey", List.of(17))
                    : Map.of("businessKey", "B-1", "processDefinitionKey", body));
            said.put("status", send((String) given.get("client"), url, path, id, text));
        } catch (RestClientResponseException error) {
            tell(said, error, FlowhooksError.of(error));
        } catch (WebClientResponseException error) {
            tell(said, error, FlowhooksError.of(error));
        } catch (ResourceAccessException | WebClientRequestException error) {
            said.put("threw", error.getClass().getSimpleName());
        } catch (FeignException error) {
            tell(said, error, FlowhooksError.of(error));
        } catch (JsonProcessingException error) {
            throw new IllegalArgumentException(error);
        }
        try {
            return JSON.writeValueAsString(said);
        } catch (JsonProcessingException error) {
            throw new IllegalStateException(error);
        }
    }

    private static int send(String client, String url, String path, String id, String body)
            throws JsonProcessingException {
        switch (client) {
            case "RestTemplate":
                org.springframework.http.HttpHeaders headers = new org.springframework.http.HttpHeaders();
                headers.setBearerAuth(TOKEN);
                ResponseEntity<String> response = new RestTemplate().postForEntity(path,
                        new org.springframework.http.HttpEntity<>(JSON.readValue(body, Map.class), headers), String.class);
                return response.getStatusCode().value();
            case "RestClient":
                return RestClient.create().post().uri(path).header("Authorization", "Bearer " + TOKEN)
                        .header("Content-Type", "application/json").body(body)
                        .retrieve().toEntity(String.class).getStatusCode().value();
            case "WebClient":
                return WebClient.create().post().uri(path).header("Authorization", "Bearer " + TOKEN)
                        .header("Content-Type", "application/json").bodyValue(body)
                        .retrieve().toEntity(String.class).block().getStatusCode().value();
            case "Feign, response":
                try (Response answer = Feign.builder().target(Callbacks.class, url).response(id, TOKEN, body)) {
                    return answer.status();
                }
            default:
                Feign.builder().target(Callbacks.class, url).body(id, TOKEN, body);
                return 0;
        }
    }

    private static void tell(Map<String, Object> said, Exception thrown, FlowhooksError error) {
        said.put("status", error.status);
        said.put("threw", thrown.getClass().getName().replaceAll(".*\\.", ""));
        said.put("message", error.message);
        said.put("event", error.event);
        said.put("getMessage", thrown.getMessage());
    }
}
