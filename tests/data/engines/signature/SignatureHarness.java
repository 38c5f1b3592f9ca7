package com.example.flowhooks;

import java.nio.file.Files;
import java.nio.file.Path;

/** Prints the headers of a body in a file. */
public final class SignatureHarness {

    private SignatureHarness() {}

    public static void main(String[] words) throws Exception {
        String json = Files.readString(Path.of(words[2]));
        new Signature(words[0]).headers(words[1], json).forEach((name, value) -> System.out.println(name + "=" + value));
    }
}
