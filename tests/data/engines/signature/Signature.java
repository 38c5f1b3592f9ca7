package com.example.flowhooks;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.security.GeneralSecurityException;
import java.util.Base64;
import java.util.Map;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** Signs callbacks according to Standard Webhooks. */
public final class Signature {

    private final SecretKeySpec key;

    /** @param secret such as whsec_..., from a file or a vault */
    public Signature(String secret) {
        key = new SecretKeySpec(Base64.getDecoder().decode(secret.substring("whsec_".length())), "HmacSHA256");
    }

    /** The headers of one try. @param id the same in each try of a callback; @param json the exact text that is sent */
    public Map<String, String> headers(String id, String json) throws GeneralSecurityException {
        long now = System.currentTimeMillis() / 1000;
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(key);
        mac.update((id + "." + now + ".").getBytes(UTF_8));
        String signature = Base64.getEncoder().encodeToString(mac.doFinal(json.getBytes(UTF_8)));
        return Map.of(
                "webhook-id", id, "webhook-timestamp", Long.toString(now), "webhook-signature", "v1," + signature);
    }
}
