#!/usr/bin/env bash
# Verifies webhooks signed as Standard Webhooks, version 1, with openssl alone: to find out at a desk why a request does not verify.
# Not for a server: openssl gets the key as an argument, which other users of the machine can see.
#
#     verify.sh FOLDER...    prints for each "valid", or why not
#
# A folder holds the files headers (`name: value` lines), body (the bytes as they came), secrets (one `whsec_...` a line) and now (Unix seconds).
set -euo pipefail
export LC_ALL=C

tolerance=300 # seconds between the sender's clock and yours, either way

check() {
    local id timestamp signatures now age secret expected offered
    id=$(header webhook-id < "$1/headers")
    timestamp=$(header webhook-timestamp < "$1/headers")
    signatures=$(header webhook-signature < "$1/headers" | tr ' ' '\n' | grep '^v1,' || true)
    now=$(cat "$1/now")

    [ -n "$id" ] || { echo "invalid: missing_id"; return; }
    [ -n "$timestamp" ] || { echo "invalid: missing_timestamp"; return; }
    [[ "$timestamp" =~ ^[0-9]{1,18}$ ]] || { echo "invalid: malformed_timestamp"; return; }
    age=$((now - 10#$timestamp))
    [ "$age" -le "$tolerance" ] || { echo "invalid: too_old"; return; }
    [ "$age" -ge "-$tolerance" ] || { echo "invalid: too_new"; return; }
    [ -n "$signatures" ] || { echo "invalid: no_signature"; return; }

    # The last line may lack its end.
    while read -r secret || [ -n "$secret" ]; do
        expected=$(sign "$secret" "$id.$timestamp." "$1/body")
        while read -r offered; do
            if [ "$(blind "$offered")" = "$(blind "$expected")" ]; then
                echo "valid"
                return
            fi
        done <<< "$signatures"
    done < "$1/secrets"
    echo "invalid: no_match"
}

# The value of a header, whatever its case.
header() {
    tr -d '\r' | awk -v name="$1" '{ end = index($0, ":") } tolower(substr($0, 1, end - 1)) == name {
        value = substr($0, end + 1); gsub(/^[ \t]+|[ \t]+$/, "", value); print value; exit }'
}

# The signature of a text and a file. The key is what the part after whsec_ is the base64 of, not its letters.
sign() {
    local key
    key=$(printf '%s' "${1#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
    [ "${#key}" -ge 48 ] || { echo "a signing secret is whsec_ and the base64 of 24 bytes or more" >&2; return 1; }
    printf 'v1,%s' "$({ printf '%s' "$2"; cat "$3"; } | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)"
}

# How long a comparison of these takes says nothing about the signature itself.
blinding=$(openssl rand -hex 32)
blind() { printf '%s' "$1" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$blinding" -r; }

for folder in "$@"; do
    check "$folder"
done
