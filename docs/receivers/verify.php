<?php
// Verifies webhooks signed as Standard Webhooks, version 1. Copy this file; it needs nothing but PHP 8.0 or later.
//
//     $problem = verify($secrets, getallheaders(), file_get_contents('php://input'));    // null: the request is genuine; else why it is not
//
// The body is the bytes as they came, before json_decode. Answer 401 to what is not genuine.

declare(strict_types=1);

/** Seconds between the sender's clock and yours, either way. */
const TOLERANCE = 300;

/**
 * Returns null where one signature matches under one secret, else a word that says why not.
 *
 * @param list<string> $secrets whsec_..., two during a rotation
 * @param array<string, string> $headers in any case
 */
function verify(array $secrets, array $headers, string $body, ?int $now = null): ?string
{
    $keys = array_map('key_of', $secrets);
    $found = array_change_key_case($headers, CASE_LOWER);
    $id = $found['webhook-id'] ?? '';
    $timestamp = $found['webhook-timestamp'] ?? '';
    $signatures = array_filter(explode(' ', $found['webhook-signature'] ?? ''), fn($entry) => str_starts_with($entry, 'v1,'));

    if ($id === '') {
        return 'missing_id';
    }
    if ($timestamp === '') {
        return 'missing_timestamp';
    }
    if (preg_match('/\A[0-9]{1,18}\z/', $timestamp) !== 1) {
        return 'malformed_timestamp';
    }
    $age = ($now ?? time()) - (int) $timestamp;
    if ($age > TOLERANCE) {
        return 'too_old';
    }
    if ($age < -TOLERANCE) {
        return 'too_new';
    }
    if ($signatures === []) {
        return 'no_signature';
    }

    foreach ($keys as $key) {
        $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
        foreach ($signatures as $offered) {
            // hash_equals takes the same time wherever the difference lies.
            if (hash_equals($expected, $offered)) {
                return null;
            }
        }
    }
    return 'no_match';
}

/** The key is what the part after whsec_ is the base64 of, not its letters. */
function key_of(string $secret): string
{
    $key = str_starts_with($secret, 'whsec_') ? base64_decode(substr($secret, 6), true) : false;
    if ($key === false || strlen($key) < 24) {
        throw new InvalidArgumentException('a signing secret is whsec_ and the base64 of 24 bytes or more');
    }
    return $key;
}

/** Verifies a recorded delivery: a folder with the files headers, body, secrets and now. */
function check(string $folder): ?string
{
    $headers = [];
    foreach (file("$folder/headers", FILE_IGNORE_NEW_LINES) as $line) {
        [$name, $value] = explode(':', $line, 2);
        $headers[$name] = trim($value);
    }
    $secrets = file("$folder/secrets", FILE_IGNORE_NEW_LINES);
    return verify($secrets, $headers, file_get_contents("$folder/body"), (int) file_get_contents("$folder/now"));
}

if (PHP_SAPI === 'cli' && realpath($argv[0] ?? '') === __FILE__) {
    foreach (array_slice($argv, 1) as $folder) {
        $problem = check($folder);
        echo $problem === null ? 'valid' : "invalid: $problem", "\n";
    }
}
