// @ts-check
// Verifies webhooks signed as Standard Webhooks, version 1. Copy this file; it needs nothing but Node 16 or later.
//
//     const problem = verify(secrets, req.headers, body);    // undefined: the request is genuine; else why it is not
//
// `body` is the Buffer as it came, before any JSON parser (express.raw, not express.json). Answer 401 to what is not genuine.
// TypeScript takes its types from the comments: set `allowJs`, or rename it to .mts and write them out.

import { createHmac, timingSafeEqual } from "node:crypto";
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { argv } from "node:process";
import { pathToFileURL } from "node:url";

/** Seconds between the sender's clock and yours, either way. */
const TOLERANCE = 300;

/**
 * Returns undefined where one signature matches under one secret, else a word that says why not.
 *
 * @param {string[]} secrets `whsec_...`, two during a rotation
 * @param {Record<string, string | string[] | undefined> | Iterable<[string, string]>} headers in any case: `req.headers`, or a `Headers` of fetch
 * @param {Uint8Array} body the bytes as they came
 * @param {number} [now] Unix seconds
 * @returns {string | undefined}
 */
export function verify(secrets, headers, body, now = Date.now() / 1000) {
  const keys = secrets.map(keyOf);
  const all = Symbol.iterator in headers ? Array.from(headers) : Object.entries(headers);
  const found = Object.fromEntries(all.map(([name, value]) => [name.toLowerCase(), String(value ?? "")]));
  const id = found["webhook-id"];
  const timestamp = found["webhook-timestamp"];
  const signatures = (found["webhook-signature"] ?? "").split(" ").filter((entry) => entry.startsWith("v1,"));

  if (!id) return "missing_id";
  if (!timestamp) return "missing_timestamp";
  if (!/^[0-9]{1,18}$/.test(timestamp)) return "malformed_timestamp";
  const age = now - Number(timestamp);
  if (age > TOLERANCE) return "too_old";
  if (age < -TOLERANCE) return "too_new";
  if (signatures.length === 0) return "no_signature";

  for (const key of keys) {
    const tag = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest("base64");
    if (signatures.some((offered) => equal(`v1,${tag}`, offered))) return undefined;
  }
  return "no_match";
}

/**
 * The key is what the part after `whsec_` is the base64 of, not its letters.
 *
 * @param {string} secret
 */
function keyOf(secret) {
  const key = Buffer.from(secret.startsWith("whsec_") ? secret.slice("whsec_".length) : "", "base64");
  if (key.length < 24) throw new Error("a signing secret is whsec_ and the base64 of 24 bytes or more");
  return key;
}

/**
 * Takes the same time wherever the difference lies.
 *
 * @param {string} expected
 * @param {string} offered
 */
function equal(expected, offered) {
  const [left, right] = [Buffer.from(expected), Buffer.from(offered)];
  return left.length === right.length && timingSafeEqual(left, right);
}

/**
 * Verifies a recorded delivery: a folder with the files headers, body, secrets and now.
 *
 * @param {string} folder
 */
function check(folder) {
  /** @param {string} name */
  const lines = (name) => readFileSync(`${folder}/${name}`, "utf8").split("\n").filter((line) => line !== "");
  const headers = Object.fromEntries(lines("headers").map((line) => {
    const end = line.indexOf(":");
    return [line.slice(0, end), line.slice(end + 1).trim()];
  }));
  return verify(lines("secrets"), headers, readFileSync(`${folder}/body`), Number(lines("now")[0]));
}

if (existsSync(argv[1] ?? "") && import.meta.url === pathToFileURL(realpathSync(argv[1])).href) {
  for (const folder of argv.slice(2)) {
    const problem = check(folder);
    console.log(problem === undefined ? "valid" : `invalid: ${problem}`);
  }
}
