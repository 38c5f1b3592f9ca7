package com.example.flowhooks;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.Map;

/** One callback: which process instance has ended, and how. */
public final class CallBack {

    private static final System.Logger LOG = System.getLogger(CallBack.class.getName());
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final int MAX_CLASS_CHARS = 512; // flowhooks answers 422 to a longer one
    private static final int MAX_CONCLUSION_CHARS = 128;

    public final String kind;
    public final String flowInstanceId;
    public final Map<String, Object> body = new LinkedHashMap<>();

    /** A callback of an instance that has completed normally. */
    public CallBack(String flowInstanceId) {
        this("complete", flowInstanceId);
    }

    /** @param kind how the instance ended: complete, cancel, error or terminate */
    public CallBack(String kind, String flowInstanceId) {
        this.kind = kind;
        this.flowInstanceId = flowInstanceId;
    }

    /** Adds one member to the body; null means absent. Do not add data that changes between tries. */
    public CallBack with(String name, Object value) {
        body.put(name, value);
        return this;
    }

    /** Adds the class by which handlers are found. */
    public CallBack withCallBackProcessClass(Object value) {
        return with("callBackProcessClass", text("callBackProcessClass", value, MAX_CLASS_CHARS));
    }

    /** Adds how the process ended in business terms, such as "approved" or "rejected". */
    public CallBack withConclusion(Object value) {
        return with("conclusion", text("conclusion", value, MAX_CONCLUSION_CHARS));
    }

    /** Adds when the instance started. If an engine uses an id again, flowhooks then detects a conflict. */
    public CallBack withStartTime(Date value) {
        return with("startTime", value == null ? null : value.toInstant().toString());
    }

    /** Adds the tenant; engines without tenants have an empty one. */
    public CallBack withTenantId(String value) {
        return with("tenantId", value == null || value.isEmpty() ? null : value);
    }

    /** Returns a process variable as text, or null if it has another type or is too long. */
    private String text(String name, Object value, int maxChars) {
        if (value == null) {
            return null;
        }
        boolean isText = value instanceof String || value instanceof Enum;
        if (!isText && !(value instanceof Number) && !(value instanceof Boolean)) {
            LOG.log(System.Logger.Level.WARNING, "{0} of {1} is not sent: it is a {2}, not text",
                    name, flowInstanceId, value.getClass().getName());
            return null;
        }
        String text = value.toString();
        // A text that is cut off could be another word. Without a conclusion flowhooks parks the event and shows why.
        if (text.codePointCount(0, text.length()) > maxChars) {
            LOG.log(System.Logger.Level.WARNING, "{0} of {1} is not sent: it has more than {2} characters",
                    name, flowInstanceId, String.valueOf(maxChars));
            return null;
        }
        return text;
    }

    public String json() {
        try {
            return JSON.writeValueAsString(body);
        } catch (JsonProcessingException error) {
            throw new IllegalStateException("A member of the callback cannot be written as JSON", error);
        }
    }
}
