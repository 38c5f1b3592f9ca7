package com.example.harness;

import com.example.flowhooks.CallBack;
import com.example.flowhooks.FlowhooksClient;
import com.example.flowhooks.Outbox;
import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import javax.sql.DataSource;

/** Lets a test drive an engine: one command per line on standard input, one answer per line on standard output, in JSON. */
public final class Console {

    /** What every engine can do. */
    public interface Engine {
        /** Starts an instance that waits for one task; returns its id. */
        String start(String key, String businessKey, Map<String, Object> variables) throws Exception;

        /** The same, of a tenant's process. */
        default String start(String key, String businessKey, String tenant) throws Exception {
            throw new UnsupportedOperationException();
        }

        /** Completes one task; most instances end with it. */
        void complete(String instanceId, Map<String, Object> variables) throws Exception;

        /** The instance that a call activity of this one has started. */
        default String called(String instanceId) {
            throw new UnsupportedOperationException();
        }

        /** Something that only some engines can do to an instance, by its name. */
        default void act(String name, String instanceId, String argument) throws Exception {
            throw new UnsupportedOperationException(name);
        }

        /** Completes the one task in a transaction that is never committed: throws a {@link Refusal}. */
        void completeWithoutCommit(String instanceId) throws Exception;

        /** Cancels the instance: it ends, but not normally. */
        void cancel(String instanceId) throws Exception;

        /** The instances that have not ended. */
        long running() throws Exception;
    }

    /** Why a transaction is not committed, and how many callbacks had been written in it. */
    public static final class Refusal extends RuntimeException {
        private static final long serialVersionUID = 1L;
        final long written;

        public Refusal(Connection connection) {
            super("not committed, as the test wants it");
            try (Statement statement = connection.createStatement();
                    ResultSet counted = statement.executeQuery("SELECT COUNT(*) FROM flowhooks_outbox")) {
                counted.next();
                written = counted.getLong(1);
            } catch (SQLException error) {
                throw new IllegalStateException(error);
            }
        }
    }

    private static final ObjectMapper JSON = new ObjectMapper();

    private Console() {}

    /** The client that the environment of this process describes. */
    public static FlowhooksClient client() {
        return new FlowhooksClient(System.getenv("FLOWHOOKS_URL"), System.getenv("FLOWHOOKS_TOKEN"));
    }

    /** Makes the table of the outbox, if it is not there. */
    public static void prepare(DataSource dataSource) throws Exception {
        if (!exists(dataSource, "FLOWHOOKS_OUTBOX")) {
            run(dataSource, "/outbox.sql");
        }
    }

    static boolean exists(DataSource dataSource, String table) throws SQLException {
        try (Connection connection = dataSource.getConnection();
                ResultSet found = connection.getMetaData().getTables(null, null, table, null)) {
            return found.next();
        }
    }

    static void run(DataSource dataSource, String resource) throws SQLException, IOException {
        String script = new String(Console.class.getResourceAsStream(resource).readAllBytes(), StandardCharsets.UTF_8);
        try (Connection connection = dataSource.getConnection(); Statement statement = connection.createStatement()) {
            for (String sql : script.replaceAll("--.*", "").split(";")) {
                if (!sql.isBlank()) {
                    statement.execute(sql);
                }
            }
        }
    }

    /** Answers commands until the end of standard input. */
    public static void serve(Engine engine, DataSource dataSource, Outbox outbox) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        answer(Map.of("ready", true));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            Map<String, Object> said = new LinkedHashMap<>();
            try {
                obey(JSON.readTree(line), said, engine, dataSource, outbox);
            } catch (Exception error) {
                Throwable cause = error;
                while (cause.getCause() != null && !(cause instanceof Refusal)) {
                    cause = cause.getCause();
                }
                said.put("error", error.toString());
                said.put("written", cause instanceof Refusal ? ((Refusal) cause).written : -1);
                if (!(cause instanceof Refusal)) {
                    error.printStackTrace();
                }
            }
            answer(said);
        }
    }

    private static void obey(
            JsonNode words, Map<String, Object> said, Engine engine, DataSource dataSource, Outbox outbox)
            throws Exception {
        String first = words.path(1).asText(null);
        switch (words.get(0).asText()) {
            case "start":
                said.put("id", engine.start(first, words.get(2).textValue(), variables(words.get(3))));
                break;
            case "start-for":
                said.put("id", engine.start(first, words.get(2).textValue(), words.get(3).asText()));
                break;
            case "complete":
                engine.complete(first, variables(words.get(2)));
                break;
            case "called":
                said.put("id", engine.called(first));
                break;
            case "act":
                engine.act(first, words.get(2).asText(), words.path(3).asText());
                break;
            case "refuse":
                engine.completeWithoutCommit(first);
                break;
            case "cancel":
                engine.cancel(first);
                break;
            case "look":
                said.put("running", engine.running());
                said.put("outbox", rows(dataSource));
                break;
            case "send":
                FlowhooksClient.Answer answer = client().send("complete", first, "{}");
                said.put("next", answer.next.name());
                said.put("waitSeconds", answer.waitSeconds);
                said.put("said", answer.said);
                break;
            case "call":
                try (Connection connection = dataSource.getConnection()) {
                    outbox.add(connection, new CallBack(first)
                            .with("businessKey", words.get(2).asText())
                            .withCallBackProcessClass(words.get(3).asText()));
                }
                outbox.wake();
                break;
            default:
                throw new IllegalArgumentException("no such command: " + words);
        }
    }

    /** Process variables; {"date": 0} stands for a date. */
    private static Map<String, Object> variables(JsonNode given) {
        Map<String, Object> variables = new LinkedHashMap<>();
        if (given != null) {
            variables = JSON.convertValue(given, new TypeReference<LinkedHashMap<String, Object>>() {});
        }
        variables.replaceAll((name, value) -> value instanceof Map ? new Date(0) : value);
        return variables;
    }

    private static List<Map<String, Object>> rows(DataSource dataSource) throws SQLException {
        List<Map<String, Object>> rows = new ArrayList<>();
        try (Connection connection = dataSource.getConnection();
                Statement statement = connection.createStatement();
                ResultSet found = statement.executeQuery(
                        "SELECT flow_instance_id, body, tries, problem, kind FROM flowhooks_outbox ORDER BY due_at")) {
            while (found.next()) {
                Map<String, Object> row = new LinkedHashMap<>();
                row.put("id", found.getString(1));
                row.put("body", found.getString(2));
                row.put("tries", found.getInt(3));
                row.put("problem", found.getString(4));
                row.put("kind", found.getString(5));
                rows.add(row);
            }
        }
        return rows;
    }

    private static void answer(Map<String, Object> said) throws IOException {
        System.out.println(JSON.writeValueAsString(said));
        System.out.flush();
    }
}
