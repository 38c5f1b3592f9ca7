package com.example.flowhooks;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.LinkedHashMap;
import java.util.Map;

/** What an engine says of a process instance that has completed. */
public final class CallBack {

    private static final ObjectMapper JSON = new ObjectMapper();

    public final String flowInstanceId;
    public final Map<String, Object> body = new LinkedHashMap<>();

    public CallBack(String flowInstanceId) {
        this.flowInstanceId = flowInstanceId;
    }

    /** Adds one member to the body; null stands for absent. Add nothing that changes from one try to the next. */
    public CallBack with(String name, Object value) {
        body.put(name, value);
        return this;
    }

    public String json() {
        try {
            return JSON.writeValueAsString(body);
        } catch (JsonProcessingException error) {
            throw new IllegalStateException("A member of the call-back cannot be written as JSON", error);
        }
    }
}
