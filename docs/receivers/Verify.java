// Verifies webhooks signed as Standard Webhooks, version 1. Copy this file; it needs nothing but Java 11 or later.
//
//     Optional<String> problem = Verify.verify(secrets, headers, body, Instant.now());    // empty: the request is genuine; else why it is not
//
// `body` is the bytes as they came, before any JSON parser. Answer 401 to what is not genuine.

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.stream.Collectors;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public final class Verify {
    /** How far the sender's clock may be from yours, either way. */
    private static final Duration TOLERANCE = Duration.ofMinutes(5);

    private Verify() {}

    /**
     * Empty where one signature matches under one secret, else a word that says why not.
     *
     * @param secrets {@code whsec_...}, two during a rotation
     * @param headers in any case
     * @param body the bytes as they came
     */
    public static Optional<String> verify(List<String> secrets, Map<String, String> headers, byte[] body, Instant now)
            throws GeneralSecurityException {
        List<byte[]> keys = new ArrayList<>();
        for (String secret : secrets) {
            keys.add(keyOf(secret));
        }
        Map<String, String> found = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
        found.putAll(headers);
        String id = found.getOrDefault("webhook-id", "");
        String timestamp = found.getOrDefault("webhook-timestamp", "");
        List<String> signatures = Arrays.stream(found.getOrDefault("webhook-signature", "").split(" "))
                .filter(entry -> entry.startsWith("v1,"))
                .collect(Collectors.toList());

        if (id.isEmpty()) {
            return Optional.of("missing_id");
        }
        if (timestamp.isEmpty()) {
            return Optional.of("missing_timestamp");
        }
        if (!timestamp.matches("[0-9]{1,18}")) {
            return Optional.of("malformed_timestamp");
        }
        long age = now.getEpochSecond() - Long.parseLong(timestamp);
        if (age > TOLERANCE.getSeconds()) {
            return Optional.of("too_old");
        }
        if (age < -TOLERANCE.getSeconds()) {
            return Optional.of("too_new");
        }
        if (signatures.isEmpty()) {
            return Optional.of("no_signature");
        }

        for (byte[] key : keys) {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(key, "HmacSHA256"));
            mac.update((id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8));
            byte[] expected = ("v1," + Base64.getEncoder().encodeToString(mac.doFinal(body))).getBytes(StandardCharsets.UTF_8);
            for (String offered : signatures) {
                // isEqual takes the same time wherever the difference lies.
                if (MessageDigest.isEqual(expected, offered.getBytes(StandardCharsets.UTF_8))) {
                    return Optional.empty();
                }
            }
        }
        return Optional.of("no_match");
    }

    /** The key is what the part after {@code whsec_} is the base64 of, not its letters. */
    private static byte[] keyOf(String secret) {
        byte[] key = secret.startsWith("whsec_") ? Base64.getDecoder().decode(secret.substring("whsec_".length())) : new byte[0];
        if (key.length < 24) {
            throw new IllegalArgumentException("a signing secret is whsec_ and the base64 of 24 bytes or more");
        }
        return key;
    }

    /** Verifies a recorded delivery: a folder with the files headers, body, secrets and now. */
    private static Optional<String> check(Path folder) throws IOException, GeneralSecurityException {
        Map<String, String> headers = new TreeMap<>();
        for (String line : Files.readAllLines(folder.resolve("headers"))) {
            String[] parts = line.split(":", 2);
            headers.put(parts[0], parts[1].trim());
        }
        long now = Long.parseLong(Files.readString(folder.resolve("now")).trim());
        List<String> secrets = Files.readAllLines(folder.resolve("secrets"));
        return verify(secrets, headers, Files.readAllBytes(folder.resolve("body")), Instant.ofEpochSecond(now));
    }

    public static void main(String[] folders) throws IOException, GeneralSecurityException {
        for (String folder : folders) {
            System.out.println(check(Path.of(folder)).map(problem -> "invalid: " + problem).orElse("valid"));
        }
    }
}
