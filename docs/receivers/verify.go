// Verifies webhooks signed as Standard Webhooks, version 1. Copy this file; it needs nothing but Go 1.18 or later.
//
//	err := Verify(secrets, request.Header, body, time.Now()) // nil: the request is genuine; else why it is not
//
// body is the bytes as they came, before any JSON parser. Answer 401 to what is not genuine.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Tolerance is how far the sender's clock may be from yours, either way.
const Tolerance = 5 * time.Minute

// Why a request is not genuine.
var (
	ErrMissingID          = errors.New("missing_id")
	ErrMissingTimestamp   = errors.New("missing_timestamp")
	ErrMalformedTimestamp = errors.New("malformed_timestamp")
	ErrTooOld             = errors.New("too_old")
	ErrTooNew             = errors.New("too_new")
	ErrNoSignature        = errors.New("no_signature")
	ErrNoMatch            = errors.New("no_match")
	ErrSecret             = errors.New("a signing secret is whsec_ and the base64 of 24 bytes or more")
)

var digits = regexp.MustCompile(`^[0-9]{1,18}$`)

// Verify returns nil where one signature matches under one secret; secrets are whsec_..., two during a rotation.
func Verify(secrets []string, headers http.Header, body []byte, now time.Time) error {
	var keys [][]byte
	for _, secret := range secrets {
		key, err := keyOf(secret)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	id, timestamp := headers.Get("webhook-id"), headers.Get("webhook-timestamp")
	var signatures []string
	for _, entry := range strings.Split(headers.Get("webhook-signature"), " ") {
		if strings.HasPrefix(entry, "v1,") {
			signatures = append(signatures, entry)
		}
	}

	if id == "" {
		return ErrMissingID
	}
	if timestamp == "" {
		return ErrMissingTimestamp
	}
	if !digits.MatchString(timestamp) {
		return ErrMalformedTimestamp
	}
	signedAt, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return ErrMalformedTimestamp
	}
	age := now.Unix() - signedAt
	if age > int64(Tolerance/time.Second) {
		return ErrTooOld
	}
	if age < -int64(Tolerance/time.Second) {
		return ErrTooNew
	}
	if len(signatures) == 0 {
		return ErrNoSignature
	}

	for _, key := range keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(body)
		expected := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		for _, offered := range signatures {
			// Equal takes the same time wherever the difference lies.
			if hmac.Equal(expected, []byte(offered)) {
				return nil
			}
		}
	}
	return ErrNoMatch
}

// The key is what the part after whsec_ is the base64 of, not its letters.
func keyOf(secret string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil || len(key) < 24 || !strings.HasPrefix(secret, "whsec_") {
		return nil, ErrSecret
	}
	return key, nil
}

// Verifies a recorded delivery: a folder with the files headers, body, secrets and now.
func check(folder string) error {
	var texts [4][]byte
	for at, name := range []string{"headers", "body", "secrets", "now"} {
		bytes, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return err
		}
		texts[at] = bytes
	}
	headers := http.Header{}
	for _, line := range strings.Split(string(texts[0]), "\n") {
		if end := strings.Index(line, ":"); end > 0 {
			headers.Add(line[:end], strings.TrimSpace(line[end+1:]))
		}
	}
	now, err := strconv.ParseInt(strings.TrimSpace(string(texts[3])), 10, 64)
	if err != nil {
		return err
	}
	return Verify(strings.Fields(string(texts[2])), headers, texts[1], time.Unix(now, 0))
}

func main() {
	for _, folder := range os.Args[1:] {
		if err := check(folder); err != nil {
			fmt.Println("invalid:", err)
		} else {
			fmt.Println("valid")
		}
	}
}
